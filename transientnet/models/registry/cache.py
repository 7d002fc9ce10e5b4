"""The cache: fetched manifests and weight files, safe among processes, readable without a network.

::

    CACHE/registries/<hash of the address>.json   a manifest as fetched, its address and commit
    CACHE/models/<name>-<version>-<hash>.onnx     a weight file; its test vectors end in .npz
    CACHE/locks/                                  one lock per file while it is fetched

A file appears under its name only after its hash was checked. A killed process leaves a
``.part`` file, from which the next one resumes.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import ContractError, ModelIntegrityError, ModelUnavailableError
from ...files.atomic import write_atomically
from ...files.locks import exclusive
from ...files.strict_json import parse_json
from ..record import ModelRecord, Source
from .fetch import Location, disk_errors, fetch
from .manifest import MAX_MANIFEST_BYTES, Manifest, check_bytes, check_model
from .safety import read_bounded

__all__ = ["Cache", "Entry"]

LOCK_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A registry as it was last fetched.

    Attributes
    ----------
    address : str
        As the user or ``TRANSIENTNET_REGISTRY`` gave it.
    pinned : Location
        The same, with the commit it had resolved to.
    manifest : Manifest
    """

    address: str
    pinned: Location
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Cache:
    """Files under one folder; nothing is made until something is fetched."""

    folder: Path

    def entry(self, address: str) -> Entry | None:
        """The registry of that address, if it was ever fetched."""
        path = self._entry_path(address)
        return _read_entry(path) if path.is_file() else None

    def entries(self) -> list[Entry]:
        """Every registry that was ever fetched, in the order of their addresses."""
        found = [_read_entry(path) for path in sorted((self.folder / "registries").glob("*.json"))]
        return sorted(found, key=lambda entry: entry.address)

    def refresh(self, address: str) -> Entry:
        """Fetch a registry's manifest and keep it.

        Raises
        ------
        ModelUnavailableError, ContractError
        ModelIntegrityError
            If a version that was fetched before has other bytes there now.
        """
        location = Location.parse(address)
        target = self._entry_path(address)
        with self._writing(target) as part:
            part.unlink(missing_ok=True)
            pinned = fetch(Source("path", location.manifest), location, part, limit=MAX_MANIFEST_BYTES)
            text = read_bounded(part, MAX_MANIFEST_BYTES)
            part.unlink()
            manifest = Manifest.parse(text, str(pinned))
            self._refuse_changed(address, manifest)
            entry = {
                "address": address,
                "pinned": {name: getattr(pinned, name) for name in Location.__slots__},
                "fetched": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "manifest": json.loads(manifest.dumps()),
            }
            write_atomically(target, json.dumps(entry, indent=1).encode())
        return Entry(address, pinned, manifest)

    def _refuse_changed(self, address: str, manifest: Manifest) -> None:
        before = self.entry(address)
        for old in before.manifest.records if before else ():
            new = manifest.select(old.name, old.version)
            if new and new.sha256 != old.sha256 and self.model(old).is_file():
                raise ModelIntegrityError(
                    f"{address}: {old.id} has sha256 {new.sha256} there now, but {old.sha256} when it was "
                    "fetched, and a published version never changes: ask who runs the registry. To accept "
                    f"the new bytes, run `transientnet models remove {address}#{old.id}` and pull again"
                )

    def model(self, record: ModelRecord) -> Path:
        """Where a record's weight file is, or would be."""
        return self.folder / "models" / f"{record.name}-{record.version}-{record.sha256[:16]}.onnx"

    def vectors(self, record: ModelRecord) -> Path:
        """Where a record's test vectors are, or would be."""
        return self.model(record).with_suffix(".npz")

    def fetch_model(self, record: ModelRecord, location: Location) -> Path:
        """A verified weight file, fetched if it is not there; one process fetches, the others wait."""
        sources = [
            replace(each, path=each.path or record.file) for each in record.sources or (Source("path"),)
        ]
        return self._fetch(
            self.model(record),
            record.size_bytes,
            lambda path: check_model(path, record),
            sources,
            location,
            record.id,
        )

    def fetch_vectors(self, record: ModelRecord, location: Location) -> Path | None:
        """The record's verified test vectors, which lie beside its manifest; None where it has none."""
        row = record.test_vectors
        if not row:
            return None
        return self._fetch(
            self.vectors(record),
            row["size_bytes"],
            lambda path: check_bytes(path, row["sha256"], row["size_bytes"]),
            [Source("path", row["file"])],
            location,
            f"the test vectors of {record.id}",
        )

    def remove(self, record: ModelRecord) -> list[Path]:
        """Delete a record's files; gives those that were there."""
        model = self.model(record)
        files = list(model.parent.glob(f"{model.stem}.*"))
        with disk_errors(self.folder):
            for path in files:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        return files

    def _entry_path(self, address: str) -> Path:
        return self.folder / "registries" / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"

    def _fetch(
        self,
        target: Path,
        size: int,
        check: Callable[[Path], None],
        sources: list[Source],
        location: Location,
        what: str,
    ) -> Path:
        """A file that passes its check, from the first source that gives it."""
        if _passes(check, target):
            return target
        with self._writing(target) as part:
            # Another process may have fetched it while this one waited.
            if _passes(check, target):
                return target
            free = shutil.disk_usage(part.parent).free
            if free < size:
                raise ModelUnavailableError(
                    f"no space left for {what} in {self.folder}: it takes {size} bytes, {free} are free; "
                    "free some, or set TRANSIENTNET_CACHE to a folder on another disk"
                )
            reasons: list[ModelUnavailableError] = []
            for source in sources:
                try:
                    _fetch_checked(source, location, part, size, check)
                except ModelUnavailableError as error:
                    reasons.append(error)
                else:
                    part.replace(target)
                    return target
            kind = type(reasons[0]) if len({type(error) for error in reasons}) == 1 else ModelUnavailableError
            why = "; ".join(str(error) for error in reasons)
            raise kind(f"{what} could not be fetched: {why}") from reasons[-1]

    @contextmanager
    def _writing(self, target: Path) -> Iterator[Path]:
        """Hold the lock of a file while its ``.part`` is written; name the fix if the disk refuses."""
        if self.folder.parts[:1] == ("~",):
            raise ModelUnavailableError("this user has no home: set TRANSIENTNET_CACHE to a folder")
        locks = self.folder / "locks"
        busy = ModelUnavailableError(
            f"another process has been fetching {target.name} for {LOCK_TIMEOUT_S:.0f} s: "
            f"end it, or delete {locks} if none is running"
        )
        with disk_errors(self.folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            locks.mkdir(exist_ok=True)
            with exclusive(locks / target.name, busy, timeout=LOCK_TIMEOUT_S):
                yield target.with_name(target.name + ".part")


def _passes(check: Callable[[Path], None], path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        check(path)
    except ModelIntegrityError:
        return False
    return True


def _fetch_checked(
    source: Source, location: Location, part: Path, size: int, check: Callable[[Path], None]
) -> None:
    """Fetch to `part` and check it; a part kept from before that does not match is thrown away once."""
    resumed = part.is_file()
    try:
        fetch(source, location, part, limit=size)
        check(part)
    except OSError as error:
        wrong = isinstance(error, ModelIntegrityError | ContractError)
        if isinstance(error, ModelUnavailableError) and not wrong:
            raise
        part.unlink(missing_ok=True)
        if not resumed or not isinstance(error, ModelIntegrityError):
            raise
        _fetch_checked(source, location, part, size, check)


def _read_entry(path: Path) -> Entry:
    data = parse_json(read_bounded(path, 2 * MAX_MANIFEST_BYTES), str(path))
    try:
        location = Location(**data["pinned"])
        return Entry(data["address"], location, Manifest.parse(json.dumps(data["manifest"]), str(path)))
    except (KeyError, TypeError) as error:
        raise ContractError(f"{path}: not a cached registry; delete it") from error
