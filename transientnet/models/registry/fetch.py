"""Get one file of a registry: from a folder, an HTTP server, a DOI or Hugging Face.

Every way ends in a file whose hash the caller checks. What goes wrong on the way becomes one
`ModelUnavailableError` that says what happened, where, and what to do.
"""

from __future__ import annotations

import errno
import http.client
import io
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from ...errors import ModelIntegrityError, ModelUnavailableError, UsageError
from ..record import Source
from .manifest import MANIFEST_NAME
from .safety import read_bounded

__all__ = ["Location", "disk_errors", "fetch"]

TIMEOUT_S = 20.0
"""Longest silence of a server, seconds."""

PATIENCE_S = 30.0
"""Seconds after which the headers must be there, and the file have come at `SLOWEST` bytes per second."""

SLOWEST = 1000.0
ATTEMPTS = 3
_CHUNK = 2**16


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
        path = Path(address).expanduser().absolute()
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
        _from_url(source.url or location.url(source.path), part, limit)
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


# HTTP -------------------------------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirects from https to {newurl.split(':')[0]}, which is refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Pace:
    """The clock of one file, over redirects, headers, body and attempts: a drop at a time is too slow."""

    def __init__(self, url: str):
        self.url = url
        self.started = time.monotonic()
        self.received = 0

    def check(self) -> None:
        elapsed = time.monotonic() - self.started
        if elapsed > PATIENCE_S and self.received < SLOWEST * elapsed:
            raise ModelUnavailableError(
                f"{self.url}: only {self.received} bytes of the file in {elapsed:.0f} s; gave up: try later, "
                "or another mirror"
            )


class _Paced(io.RawIOBase):
    """A connection's bytes; whoever waits for them, a line of the headers too, asks the clock before."""

    def __init__(self, raw: io.RawIOBase, pace: _Pace):
        self.raw, self.pace = raw, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.pace.check()
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


def _opener(pace: _Pace) -> urllib.request.OpenerDirector:
    def answer(*args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(*args, **kwargs)
        response.fp = io.BufferedReader(_Paced(response.fp.detach(), pace))
        return response

    class Watched(urllib.request.AbstractHTTPHandler):
        def do_open(self, http_class: Any, req: Any, **kwargs: Any) -> Any:
            def connection(host: str, **options: Any) -> Any:
                made = http_class(host, **options)
                made.response_class = answer
                return made

            return super().do_open(connection, req, **kwargs)

    class Plain(Watched, urllib.request.HTTPHandler): ...

    class Secure(Watched, urllib.request.HTTPSHandler): ...

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        Plain(),
        Secure(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class _CutShort(Exception):
    """The connection ended early; what arrived is kept, and the transfer can resume there."""


def _from_url(url: str, part: Path, limit: int) -> None:
    """Bring a file from an ``https://``, ``http://`` or ``doi:`` address to `part`, resuming it."""
    if url.startswith("doi:"):
        url = _doi_url(url)
    reason, pace = "", _Pace(url)
    for _ in range(ATTEMPTS):
        try:
            return _transfer(url, part, limit, pace)
        except _CutShort as cut:
            reason = str(cut)
    raise ModelUnavailableError(
        f"{url}: the connection was cut {ATTEMPTS} times ({reason}); what arrived is kept: "
        "the next try resumes there"
    )


def _transfer(url: str, part: Path, limit: int, pace: _Pace) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(
        url, headers={"Accept-Encoding": "identity", "User-Agent": "transientnet"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = _opener(pace).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            part.unlink()
            raise _CutShort("the part kept from before does not match") from error
        raise ModelUnavailableError(f"{url}: {_status_advice(error.code, error.reason)}") from error
    except ModelUnavailableError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ModelUnavailableError(f"{url}: {_network_advice(error, url)}") from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        if not resumed:
            have = 0
        if response.headers.get_content_type() == "text/html":
            raise ModelIntegrityError(
                f"{url}: the server answered with a web page instead of the file: "
                "check the address, and whether it asks for a login or hides behind a portal"
            )
        # None where the server does not say, or writes what is not a number.
        total = None if response.length is None else have + response.length
        if total is not None and total > limit:
            raise ModelIntegrityError(f"{url}: the server has {total} bytes, more than the {limit} expected")
        with open(part, "ab" if resumed else "wb") as target:
            have += _pour(response, target, url, limit - have, pace)
    if total is not None and have < total:
        raise _CutShort(f"{have} of {total} bytes")


def _pour(response: Any, target: IO[bytes], url: str, limit: int, pace: _Pace) -> int:
    """Copy a body as it arrives, at most `limit` bytes of it."""
    received = 0
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except ModelUnavailableError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise _CutShort(_network_advice(error, url)) from error
        if not chunk:
            return received
        received += len(chunk)
        pace.received += len(chunk)
        if received > limit:
            raise ModelIntegrityError(f"{url}: the server sends more than the {limit} bytes expected")
        target.write(chunk)


def _status_advice(code: int, reason: Any) -> str:
    advice = {
        401: "the server asks for a login, which transientnet does not send",
        403: "the server forbids it",
        404: "no such file on the server: check the address",
        407: "the proxy asks for a login: put it into HTTPS_PROXY",
        410: "no such file on the server any more",
    }.get(
        code,
        "the server fails: try later, or another mirror" if code >= 500 else "the server does not give it",
    )
    return f"HTTP status {code} ({reason}): {advice}"


def _network_advice(error: BaseException, url: str) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    scheme = url.split(":")[0]
    proxy = urllib.request.getproxies().get(scheme)
    via = ""
    if proxy and not urllib.request.proxy_bypass(urllib.parse.urlsplit(url).hostname or ""):
        # A proxy's address may hold a password.
        via = f" through the proxy {proxy.rpartition('@')[2]} (set by {scheme.upper()}_PROXY)"
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT_S:.0f} s{via}: try later, or another mirror"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the certificate cannot be verified ({reason.verify_message}){via}: set SSL_CERT_FILE"
    if isinstance(reason, socket.gaierror):
        return f"the host name cannot be resolved{via}: check the address and the network, or work offline"
    return f"{reason or type(reason).__name__}{via}"


def _doi_url(address: str) -> str:
    """Address of a file in a Zenodo, Figshare or Dataverse record: ``doi:10.5281/zenodo.1/file``."""
    from pooch.downloaders import doi_to_repository

    doi, _, name = address.removeprefix("doi:").rpartition("/")
    try:
        url: str = doi_to_repository(doi).download_url(name)
    except Exception as error:  # pooch passes on whatever requests and the archive raise
        raise ModelUnavailableError(f"{address}: the DOI cannot be resolved ({error})") from error
    return url


# Hugging Face -----------------------------------------------------------------------------------


def _from_hub(repo: str, path: str, revision: str, part: Path, limit: int) -> str:
    """Bring a file of a Hugging Face repository to `part`; give the commit that it comes from."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    staging = part.with_name(part.name + ".hub")
    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        known = get_hf_file_metadata(hf_hub_url(repo, path, revision=revision or "main"))
        if known.size is not None and known.size > limit:
            raise ModelIntegrityError(
                f"hf://{repo}/{path}: the Hub has {known.size} bytes, more than the {limit} expected"
            )
        commit = known.commit_hash or revision
        got = hf_hub_download(repo, path, revision=commit, local_dir=staging)
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
