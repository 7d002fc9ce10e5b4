"""Get one file of a registry: from a folder, an HTTP server, a DOI or Hugging Face.

Every way ends in a file whose hash the caller checks. What goes wrong on the way becomes one
`ModelUnavailableError` that says what happened, where, and what to do.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ModelIntegrityError, ModelUnavailableError, UsageError
from ..record import Source
from .manifest import MANIFEST_NAME
from .safety import read_bounded

__all__ = ["Location", "disk_errors", "fetch"]


@dataclass(frozen=True, slots=True)
class Location:
    """Where a registry is.

    Attributes
    ----------
    kind : {"folder", "http", "doi", "hf"}
    base : str
        Folder; URL of the folder with a final slash; ``10.5281/zenodo.1``; ``org/repo``.
    manifest : str
        File name of the manifest there.
    revision : str
        For ``hf``: branch, tag or commit; empty for the main branch.
    """

    kind: str
    base: str
    manifest: str = MANIFEST_NAME
    revision: str = ""

    @classmethod
    def parse(cls, address: str) -> Location:
        """Understand ``hf://org/repo[@revision]``, ``https://…``, ``doi:10.…`` or a folder."""
        scheme, _, rest = address.partition("://")
        if scheme == "hf":
            repo, _, revision = rest.partition("@")
            if repo.count("/") != 1 or not all(repo.split("/")):
                raise UsageError(f"{address!r}: write hf://org/repo or hf://org/repo@revision")
            return cls("hf", repo, revision=revision)
        if scheme in ("https", "http"):
            if rest.endswith(".json"):
                folder, _, name = address.rpartition("/")
                return cls("http", folder + "/", name)
            return cls("http", address.rstrip("/") + "/")
        if address.startswith("doi:"):
            return cls("doi", address.removeprefix("doi:").strip("/"))
        if rest:
            raise UsageError(f"{address!r}: a registry is a folder, https://…, hf://org/repo or doi:10.…")
        path = Path(os.path.expanduser(address)).absolute()
        if path.suffix == ".json":
            return cls("folder", str(path.parent), path.name)
        return cls("folder", str(path))

    def __str__(self) -> str:
        name = "" if self.manifest == MANIFEST_NAME else self.manifest
        if self.kind == "hf":
            return f"hf://{self.base}" + (f"@{self.revision}" if self.revision else "")
        if self.kind == "doi":
            return f"doi:{self.base}"
        return f"{self.base}{name}" if self.kind == "http" else str(Path(self.base) / name)

    def url(self, path: str) -> str:
        """Address of a file beside the manifest, on a server or in an archive."""
        return f"doi:{self.base}/{path}" if self.kind == "doi" else self.base + urllib.parse.quote(path)


def fetch(source: Source, location: Location, part: Path, *, limit: int) -> Location:
    """Bring one file to `part`; give the location, pinned to its commit.

    Parameters
    ----------
    source : Source
        Where the file is; of kind ``path``, beside the manifest of `location`.
    location : Location
        The registry.
    part : Path
        A file that exists already is taken for the beginning, where the server can resume.
    limit : int
        Most bytes that are accepted.

    Raises
    ------
    ModelUnavailableError
        Everything but the local disk, which raises OSError; see `disk_errors`.
    """
    if source.kind == "path" and location.kind == "folder":
        part.write_bytes(read_bounded(Path(location.base) / source.path, limit))
    elif source.kind == "path" and location.kind == "hf":
        commit = _from_hub(location.base, source.path, location.revision, part, limit)
        return replace(location, revision=commit)
    elif source.kind == "hf":
        _from_hub(source.repo, source.path, source.revision, part, limit)
    elif source.kind in ("path", "url"):
        # Of the web only who fetches from it pays for the modules.
        from .download import from_url

        from_url(source.url or location.url(source.path), part, limit)
    else:
        raise ModelUnavailableError(f"a source of kind {source.kind!r} works in the installed package only")
    return location


@contextmanager
def disk_errors(folder: Path, advice: str = "set TRANSIENTNET_CACHE to a folder") -> Iterator[None]:
    """Turn what the local disk raises into an error that names the fix."""
    try:
        yield
    except ModelUnavailableError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text = f"no space left for {folder} ({error.strerror}): free some, or {advice} on another disk"
        else:
            text = f"cannot write to {folder} ({error.strerror or error}): {advice} that you may write to"
        raise ModelUnavailableError(text) from error


# Hugging Face -----------------------------------------------------------------------------------


def _from_hub(repo: str, path: str, revision: str, part: Path, limit: int) -> str:
    """Bring a file of a Hugging Face repository to `part`; give the commit that it comes from."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    from .download import PATIENCE_S, SLOWEST

    staging = part.with_name(part.name + ".hub")
    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        address = hf_hub_url(repo, path, revision=revision or "main")
        known = _within(PATIENCE_S, partial(get_hf_file_metadata, address), address)
        if known.size is not None and known.size > limit:
            raise ModelIntegrityError(
                f"hf://{repo}/{path}: the Hub has {known.size} bytes, more than the {limit} expected"
            )
        commit = known.commit_hash or revision
        download = partial(hf_hub_download, repo, path, revision=commit, local_dir=staging)
        got = _within(PATIENCE_S + limit / SLOWEST, download, address)
    except ModelUnavailableError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            shutil.rmtree(staging, ignore_errors=True)
            raise
        raise ModelUnavailableError(_hub_advice(repo, path, revision, error)) from error
    except Exception as error:  # the Hub's client has an exception tree of its own
        raise ModelUnavailableError(_hub_advice(repo, path, revision, error)) from error
    finally:
        if quiet:
            enable_progress_bars()
    Path(got).replace(part)
    shutil.rmtree(staging, ignore_errors=True)
    return commit


def _within(seconds: float, call: Callable[[], Any], address: str) -> Any:
    """What a call gives, if it does in time: the Hub's client bounds a silence, but not a drop at a time."""
    answers: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise ModelUnavailableError(f"{address}: not done in {seconds:.0f} s; gave up: try later")
    return answers[0]


def _hub_advice(repo: str, path: str, revision: str, error: Exception) -> str:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"hf://{repo}" + (f"@{revision}" if revision else "")
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{where}: no such repository, or a private one: check the name, and log in with `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{where}: no such revision in the repository"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return (
            f"{where}: no file {path} in the repository: was it published with `transientnet models publish`?"
        )
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{where}: {path} could not be fetched ({lines[0]}): check the network, or work offline"
