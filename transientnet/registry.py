"""From a model's name to a verified local ``.onnx`` and its record."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from .contract import METADATA_KEY, ModelRecord
from .errors import ContractError, ModelIntegrityError, ModelNotFoundError, ModelUnavailableError

__all__ = ["bundled_manifest", "list_models", "resolve"]

_PACKAGE = Path(__file__).parent
MANIFEST_NAME = "weights_manifest.json"


def bundled_manifest() -> Path:
    """The manifest in the package, or, in a checkout, the one beside it."""
    for path in (_PACKAGE / MANIFEST_NAME, _PACKAGE.parent / MANIFEST_NAME):
        if path.is_file():
            return path
    raise ModelUnavailableError(f"no {MANIFEST_NAME} in {_PACKAGE} or beside it: install transientnet again")


def read_manifest(path: Path) -> tuple[list[ModelRecord], dict[str, str]]:
    """Records of a manifest, and the default version of each name."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version, models, defaults = data["schema_version"], data["models"], data["defaults"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path}: not a weights manifest ({error})") from error
    if version != 1:
        raise ContractError(f"{path}: schema_version {version} is newer than this transientnet; upgrade it")
    return [ModelRecord.from_dict(row, f"{path}: model {n}") for n, row in enumerate(models)], dict(defaults)


def list_models() -> list[ModelRecord]:
    """Every model that can be named: the bundled ones."""
    return read_manifest(bundled_manifest())[0]


def resolve(name_or_path: str | Path, *, offline: bool | None = None) -> tuple[Path, ModelRecord]:
    """Find a model's file and record, and verify one against the other."""
    text = str(name_or_path)
    if text.endswith(".onnx") or Path(text).is_file():
        path = Path(text)
        if not path.is_file():
            raise ModelNotFoundError(f"no model file at {path}")
        return path, read_metadata(path)
    name, _, wanted = text.partition("@")
    records, defaults = read_manifest(bundled_manifest())
    wanted = wanted or defaults.get(name, "")
    for record in records:
        if record.name == name and (record.version == wanted or record.version.startswith(wanted + ".")):
            path = _PACKAGE / "weights" / record.file
            verify(path, record)
            return path, record
    known = ", ".join(sorted({record.name for record in records})) or "none"
    raise ModelNotFoundError(f"no model {text!r}; known models: {known}")


@cache
def _sha256(path: Path, size: int, mtime: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(path: Path, record: ModelRecord) -> None:
    """Check the file's hash and its metadata against the manifest's record."""
    if not path.is_file():
        raise ModelUnavailableError(
            f"the weight file {path} of {record.id} is missing: install transientnet again"
        )
    stat = path.stat()
    found = _sha256(path, stat.st_size, stat.st_mtime_ns)
    if found != record.sha256:
        raise ModelIntegrityError(f"{path}: sha256 {found} is not {record.sha256}, which the manifest pins")
    if different := record.differences(read_metadata(path)):
        raise ContractError(f"{path}: manifest and ONNX metadata differ in {', '.join(different)}")


def read_metadata(path: Path) -> ModelRecord:
    """The record inside an ONNX file."""
    import onnxruntime as ort

    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises bare classes of its own
        raise ModelIntegrityError(f"{path}: not an ONNX model ({error})") from error
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ContractError(
            f"{path}: the ONNX metadata has no {METADATA_KEY!r} record; export it with transientnet"
        )
    return ModelRecord.from_metadata(text, str(path))
