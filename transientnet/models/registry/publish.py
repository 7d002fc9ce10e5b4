"""Lay out or upload a registry that another machine then uses by name."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from ...errors import ModelIntegrityError, ModelUnavailableError, UsageError
from ...files.atomic import write_atomically
from ...files.locks import exclusive
from ...settings import get_settings
from ..cards import registry_card
from ..record import ModelRecord, Source
from .fetch import Location, disk_errors
from .manifest import MANIFEST_NAME, Manifest, check_files, write_registry

__all__ = ["publish"]

ATTEMPTS = 3


def publish(
    model_dir: str | Path, to: str, *, private: bool = False, keep_defaults: bool = False
) -> tuple[str, list[ModelRecord]]:
    """Add a model to a registry: a folder, or a Hugging Face repository.

    Parameters
    ----------
    model_dir : str or Path
        Folder with a manifest, weight file, card and test vectors, as `adapt` writes it.
    to : str
        ``hf://org/repo``, or a folder: on a shared disk, or to be put on any web server.
    private : bool
        Make a new Hugging Face repository private.
    keep_defaults : bool
        Leave the default versions as they are; otherwise a higher stable version becomes it.

    Returns
    -------
    address : str
        The registry; for Hugging Face pinned to the commit that was made.
    records : list of ModelRecord
        The rows as published.

    Raises
    ------
    ModelIntegrityError
        If a file differs from its row, or a published version would change.
    ModelUnavailableError, ContractError, UsageError
    """
    folder = Path(model_dir)
    rows, files = _gather(folder)
    target = Location.parse(to)
    if target.kind == "folder":
        _to_folder(Path(target.base), rows, files, keep_defaults)
    elif target.kind == "hf":
        commit = _to_hub(target, rows, files, private, keep_defaults)
        target = replace(target, revision=commit)
    else:
        raise UsageError(f"cannot publish to {to}: publish to a folder, and put that on your server")
    return str(target), rows


def _gather(folder: Path) -> tuple[list[ModelRecord], dict[str, Path]]:
    """Rows under their published names, and the file behind each name; all verified."""
    rows: list[ModelRecord] = []
    files: dict[str, Path] = {}
    for record in Manifest.read(folder / MANIFEST_NAME).records:
        check_files(folder, record)
        stem, vectors = f"{record.name}-{record.version}", dict(record.test_vectors)
        files[f"{stem}.onnx"] = folder / record.file
        if vectors:
            files[f"{stem}.npz"] = folder / vectors["file"]
            vectors["file"] = f"{stem}.npz"
        card = f"{stem}.md" if record.card else ""
        if card:
            files[card] = folder / record.card
        rows.append(
            replace(record, file=f"{stem}.onnx", card=card, test_vectors=vectors, sources=(Source("path"),))
        )
    if not rows:
        raise ModelUnavailableError(f"{folder / MANIFEST_NAME} lists no model")
    return rows, files


def _to_folder(folder: Path, rows: list[ModelRecord], files: dict[str, Path], keep_defaults: bool) -> None:
    manifest = folder / MANIFEST_NAME
    with disk_errors(folder, "publish to a folder"):
        folder.mkdir(parents=True, exist_ok=True)
        busy = ModelUnavailableError(
            f"another process has been publishing to {folder} for a minute: try again"
        )
        with exclusive(manifest, busy, timeout=60.0):
            before = Manifest.read(manifest) if manifest.is_file() else Manifest()
            # Refuses a changed version before a file is touched.
            after = before.with_records(rows, keep_defaults=keep_defaults)
            for name, path in files.items():
                write_atomically(folder / name, path.read_bytes())
            write_atomically(folder / "README.md", registry_card(after.records).encode())
            write_registry(folder, rows, keep_defaults=keep_defaults)


def _to_hub(
    target: Location, rows: list[ModelRecord], files: dict[str, Path], private: bool, keep_defaults: bool
) -> str:
    if get_settings().offline:
        raise ModelUnavailableError(
            f"cannot publish to {target}: offline was asked for, so no connection was opened"
        )
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(target.base, private=private, exist_ok=True)
        for attempt in range(ATTEMPTS):
            before, commit = _hub_manifest(target)
            after = before.with_records(rows, keep_defaults=keep_defaults)
            contents: dict[str, bytes | str] = {name: str(path) for name, path in files.items()}
            contents["README.md"] = registry_card(after.records, str(target)).encode()
            contents[MANIFEST_NAME] = after.dumps().encode()
            try:
                made = api.create_commit(
                    target.base,
                    [CommitOperationAdd(name, content) for name, content in contents.items()],
                    commit_message="Publish " + ", ".join(row.id for row in rows),
                    revision=target.revision or None,
                    # Refused if another has published since the manifest was read.
                    parent_commit=commit,
                )
            except HfHubHTTPError as error:
                if error.response.status_code == 412 and attempt + 1 < ATTEMPTS:
                    continue
                raise
            return str(made.oid)
    except (ModelIntegrityError, ModelUnavailableError):
        raise
    except Exception as error:  # the Hub's client has an exception tree of its own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelUnavailableError(
            f"cannot publish to {target}: {first}: log in with `hf auth login` using a token that may write"
        ) from error
    raise ModelUnavailableError(f"cannot publish to {target}: others publish there all the time; try again")


def _hub_manifest(target: Location) -> tuple[Manifest, str]:
    """The repository's manifest, empty if there is none, and the commit that it is read at."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    commit = str(HfApi().model_info(target.base, revision=target.revision or None).sha)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = hf_hub_download(target.base, MANIFEST_NAME, revision=commit, local_dir=scratch)
        except EntryNotFoundError:
            return Manifest(), commit
        return Manifest.read(Path(path)), commit
