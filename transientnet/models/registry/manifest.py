"""The manifest of a registry: its records, their default versions, and the files that they pin."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from ...errors import ContractError, ModelIntegrityError, ModelUnavailableError
from ...files.atomic import write_atomically
from ...files.strict_json import parse_json
from ..record import ModelRecord, Source
from .safety import MAX_ONNX_BYTES, onnx_metadata, read_bounded

__all__ = [
    "MANIFEST_NAME",
    "MAX_MANIFEST_BYTES",
    "Manifest",
    "bundled_folder",
    "bundled_manifest",
    "check_bytes",
    "check_files",
    "check_model",
    "manifest_row",
    "read_metadata",
    "split_reference",
    "write_registry",
]

MANIFEST_NAME = "weights_manifest.json"
SCHEMA_VERSION = 1
MAX_MANIFEST_BYTES = 16 * 2**20

_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Records of one registry, and which version a bare name means.

    Attributes
    ----------
    records : tuple of ModelRecord
    defaults : dict of str to str
        Version of each name that is taken where none is asked for.
    """

    records: tuple[ModelRecord, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = [record.id for record in self.records]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ContractError(f"manifest: {', '.join(twice)} more than once")
        names = {record.name for record in self.records}
        wrong = [
            f"{name}@{version}" for name, version in self.defaults.items() if f"{name}@{version}" not in ids
        ]
        if wrong or names - set(self.defaults):
            missing = ", ".join([*wrong, *sorted(names - set(self.defaults))])
            raise ContractError(f"manifest: defaults must name one listed version per model; see {missing}")

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Parse and validate a manifest's JSON; raises `ContractError`."""
        data = parse_json(text, where)
        if not isinstance(data, dict) or set(data) != {"schema_version", "defaults", "models"}:
            raise ContractError(f"{where}: a manifest must hold schema_version, defaults and models, no more")
        if data["schema_version"] != SCHEMA_VERSION:
            raise ContractError(
                f"{where}: schema_version {data['schema_version']!r} is not {SCHEMA_VERSION}, "
                "the one that this transientnet reads: upgrade it"
            )
        defaults, rows = data["defaults"], data["models"]
        if not isinstance(rows, list) or not isinstance(defaults, dict):
            raise ContractError(f"{where}: models must be a list, and defaults an object")
        records = tuple(ModelRecord.from_dict(row, f"{where}: model {n}") for n, row in enumerate(rows))
        for record in records:
            if not (record.file and record.sha256 and record.size_bytes):
                raise ContractError(f"{where}: {record.id} lacks its file, sha256 or size_bytes")
        try:
            return cls(records, defaults)
        except ContractError as error:
            raise ContractError(f"{where}: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Parse a manifest file."""
        return cls.parse(read_bounded(path, MAX_MANIFEST_BYTES), str(path))

    def dumps(self) -> str:
        """The manifest as JSON text."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "defaults": dict(self.defaults),
            "models": [record.to_dict() for record in self.records],
        }
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def names(self) -> list[str]:
        """Names of the models, sorted."""
        return sorted(self.defaults)

    def select(self, name: str, version: str = "") -> ModelRecord | None:
        """The record of a name: its default, or the highest version that `version` begins.

        Parameters
        ----------
        name : str
            May be empty where the registry holds one model only.
        version : str
            Empty, ``1``, ``1.2`` or ``1.2.0``.
        """
        if not name and len(self.defaults) == 1:
            name = next(iter(self.defaults))
        wanted = version or self.defaults.get(name, "")
        matches = [
            record
            for record in self.records
            if record.name == name and f"{record.version}.".startswith(f"{wanted}.")
        ]
        return max(matches, key=_order, default=None)

    def with_records(self, records: Iterable[ModelRecord], *, keep_defaults: bool = False) -> Manifest:
        """A manifest with more records, or with newer rows of the same bytes.

        A stable version higher than the default becomes the default, unless `keep_defaults`.

        Raises
        ------
        ModelIntegrityError
            If a version that is already there has other bytes.
        """
        rows = {record.id: record for record in self.records}
        defaults = dict(self.defaults)
        for record in records:
            present = rows.get(record.id)
            if present is not None and present.sha256 != record.sha256:
                raise ModelIntegrityError(
                    f"{record.id} is already published with sha256 {present.sha256}, and this one has "
                    f"{record.sha256}: a published version never changes; raise the version"
                )
            rows[record.id] = record
            current = defaults.get(record.name)
            higher = current is None or _order(record) > _order(rows[f"{record.name}@{current}"])
            if current is None or (higher and record.status == "stable" and not keep_defaults):
                defaults[record.name] = record.version
        return Manifest(tuple(rows.values()), defaults)


def _order(record: ModelRecord) -> tuple[int, ...]:
    return tuple(int(part) for part in record.version.split("."))


def bundled_manifest(package: Path = _PACKAGE) -> Path:
    """The manifest in the package, or, in a checkout, the one beside it.

    Parameters
    ----------
    package : Path
        Folder of an installed or checked-out package; by default this one.

    Raises
    ------
    ContractError
        If both exist and differ: one of them is stale.
    """
    inside, beside = package / MANIFEST_NAME, package.parent / MANIFEST_NAME
    checkout = (package.parent / "pyproject.toml").is_file()
    found = [path for path in (inside, beside) if path.is_file() and (path == inside or checkout)]
    if not found:
        raise ModelUnavailableError(
            f"no {MANIFEST_NAME} in {package} or beside it: install transientnet again"
        )
    if len(found) == 2 and inside.read_bytes() != beside.read_bytes():
        raise ContractError(f"{inside} and {beside} differ: delete {inside}, a stale copy, or install again")
    return found[0]


def bundled_folder() -> Path:
    """Folder of the bundled weight files."""
    return _PACKAGE / "weights"


def read_metadata(path: Path) -> ModelRecord:
    """The record inside an ONNX file, after the checks of `safety`; no session is started.

    Raises
    ------
    ModelUnavailableError, ModelIntegrityError, ContractError
    """
    stat = _stat(path)
    return ModelRecord.from_metadata(_metadata(str(path), stat.st_size, stat.st_mtime_ns), str(path))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path}: {error.strerror or error}") from error


# Once per state of a file and process.
@cache
def _metadata(path: str, size: int, mtime_ns: int) -> str:
    return onnx_metadata(read_bounded(Path(path), MAX_ONNX_BYTES), path)


@cache
def _digest(path: str, size: int, mtime_ns: int) -> str:
    return hashlib.sha256(read_bounded(Path(path), MAX_ONNX_BYTES)).hexdigest()


def check_model(path: Path, record: ModelRecord) -> None:
    """Check a weight file against its record: hash, safety, and the record in its metadata.

    Raises
    ------
    ModelUnavailableError, ModelIntegrityError, ContractError
    """
    check_bytes(path, record.sha256, record.size_bytes)
    if different := record.differences(read_metadata(path)):
        raise ContractError(f"{path}: manifest and ONNX metadata differ in {', '.join(different)}")


def check_bytes(path: Path, sha256: str, size: int) -> None:
    """Check a file's size and hash, before anything else looks into it.

    Raises
    ------
    ModelUnavailableError, ModelIntegrityError
    """
    stat = _stat(path)
    if stat.st_size != size:
        raise ModelIntegrityError(f"{path}: {stat.st_size} bytes instead of the {size} of the manifest")
    found = _digest(str(path), stat.st_size, stat.st_mtime_ns)
    if found != sha256:
        raise ModelIntegrityError(f"{path}: sha256 is {found}, but the manifest pins {sha256}")


def check_files(folder: Path, record: ModelRecord) -> None:
    """Check the weight file, test vectors and card of a row in a registry's folder.

    Raises
    ------
    ModelUnavailableError, ModelIntegrityError, ContractError
    """
    check_model(folder / record.file, record)
    if row := record.test_vectors:
        check_bytes(folder / row["file"], row["sha256"], row["size_bytes"])
    if record.card and not (folder / record.card).is_file():
        raise ModelUnavailableError(f"{record.id}: no card at {folder / record.card}")


def manifest_row(
    record: ModelRecord,
    model: Path,
    *,
    sources: Iterable[Source] = (Source("path"),),
    vectors: Path | None = None,
    tolerance: float = 1e-3,
    card: str = "",
) -> ModelRecord:
    """A record completed with what only the manifest knows: names, sizes and hashes of its files.

    Parameters
    ----------
    record : ModelRecord
        As it stands in the ONNX metadata of `model`.
    model, vectors : Path
        The weight file, and its test vectors if there are; both in the registry's folder.
    sources : iterable of Source
        Where to fetch the weight file; by default beside the manifest.
    tolerance : float
        Largest deviation of the test vectors, see `vectors`.
    card : str
        File name of the model card in the registry's folder.

    Raises
    ------
    ContractError
        If the file's metadata is not the record.
    """
    vector_row: dict[str, Any] = {}
    if vectors is not None:
        vector_row = {**_pinned(vectors), "tolerance": tolerance}
    row = replace(record, **_pinned(model), sources=tuple(sources), test_vectors=vector_row, card=card)
    check_model(model, row)
    return row


def _pinned(path: Path) -> dict[str, Any]:
    data = read_bounded(path, MAX_ONNX_BYTES)
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def write_registry(
    folder: Path, records: Iterable[ModelRecord], *, manifest: Path | None = None, keep_defaults: bool = False
) -> Path:
    """Add records to the manifest of a folder that holds their files, and write it whole.

    Parameters
    ----------
    folder : Path
        Where the files are.
    records : iterable of ModelRecord
        Rows as `manifest_row` gives them.
    manifest : Path, optional
        By default ``weights_manifest.json`` in `folder`.
    keep_defaults : bool
        Leave the present default versions as they are.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    ModelIntegrityError, ModelUnavailableError, ContractError
        If a file is absent or differs from its row, or a version is there with other bytes.
    """
    records = tuple(records)
    for record in records:
        check_files(folder, record)
    target = manifest or folder / MANIFEST_NAME
    before = Manifest.read(target) if target.is_file() else Manifest()
    write_atomically(target, before.with_records(records, keep_defaults=keep_defaults).dumps().encode())
    return target


_REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)?(?:@(?P<version>\d+(?:\.\d+){0,2}))?")


def split_reference(text: str) -> tuple[str, str] | None:
    """``name[@version]`` as a pair, or None where the text is not one."""
    match = _REFERENCE.fullmatch(text)
    return (match["name"] or "", match["version"] or "") if match else None
