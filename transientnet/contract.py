"""What a model wants and gives: parsed from the manifest and from the ONNX metadata alike."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from .errors import ContractError
from .triplet import CHANNELS

__all__ = ["METADATA_KEY", "NORMALISATIONS", "InputContract", "ModelRecord", "Source"]

METADATA_KEY = "transientnet"
"""Name of the ONNX metadata property that holds the record as JSON."""

NORMALISATIONS = ("robust-asinh",)
MISSING_POLICIES = ("refuse", "background")

MANIFEST_ONLY = ("file", "sha256", "size_bytes", "sources", "test_vectors", "card")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _fields_of(cls: type, data: Any, where: str) -> dict[str, Any]:
    """Check that `data` is an object with known keys only, and give it as keyword arguments."""
    if not isinstance(data, Mapping):
        raise ContractError(f"{where}: expected an object, got {type(data).__name__}")
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ContractError(
            f"{where}: unknown field(s) {', '.join(unknown)}; if the model is new, upgrade transientnet"
        )
    return dict(data)


@dataclass(frozen=True, slots=True)
class InputContract:
    """How triplets must look when they enter the network.

    Parameters
    ----------
    size : int
        Side of the square stamps in pixels; odd, so that one pixel is the centre.
    pixel_scale_arcsec : float
        Pixel scale of the survey that the model was trained on; tells, does not decide.
    fwhm_px : (float, float)
        Seeing that the network knows, in pixels. Stamps with a broader point-spread function are
        shrunk to the upper limit; sharper ones are left as they are.
    missing_reference, missing_difference : {"background", "refuse"}
        What an absent stamp becomes: a stamp at the background level, which the network met in
        training, with a quality flag; or a refusal to score. A candidate with neither of the
        two is always refused.
    normalisation : str
        Name of the normalisation in `preprocess`.
    softening : float
        Noise standard deviations at which the stretch turns from linear to logarithmic.
    """

    size: int = 63
    pixel_scale_arcsec: float = 1.01
    fwhm_px: tuple[float, float] = (1.2, 5.0)
    missing_reference: str = "background"
    missing_difference: str = "background"
    normalisation: str = "robust-asinh"
    softening: float = 2.0
    channels: tuple[str, ...] = CHANNELS

    def __post_init__(self) -> None:
        object.__setattr__(self, "fwhm_px", tuple(float(v) for v in self.fwhm_px))
        object.__setattr__(self, "channels", tuple(self.channels))
        problems = []
        if not isinstance(self.size, int) or not 15 <= self.size <= 255 or self.size % 2 == 0:
            problems.append(f"size must be an odd integer from 15 to 255, not {self.size!r}")
        if self.channels != CHANNELS:
            problems.append(f"channels must be {list(CHANNELS)}, not {list(self.channels)}")
        if len(self.fwhm_px) != 2 or not 0 < self.fwhm_px[0] < self.fwhm_px[1]:
            problems.append(f"fwhm_px must be an increasing pair, not {self.fwhm_px}")
        if self.normalisation not in NORMALISATIONS:
            problems.append(f"normalisation {self.normalisation!r} is not one of {list(NORMALISATIONS)}")
        problems += [
            f"{name} must be one of {list(MISSING_POLICIES)}, not {getattr(self, name)!r}"
            for name in ("missing_reference", "missing_difference")
            if getattr(self, name) not in MISSING_POLICIES
        ]
        if not self.softening > 0 or not self.pixel_scale_arcsec > 0:
            problems.append("softening and pixel_scale_arcsec must be positive")
        if problems:
            raise ContractError("input contract: " + "; ".join(problems))

    @classmethod
    def from_dict(cls, data: Any, where: str = "input contract") -> Self:
        """Parse and validate; raises `ContractError`."""
        try:
            return cls(**_fields_of(cls, data, where))
        except (TypeError, ValueError) as error:
            raise ContractError(f"{where}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = _plain(self)
        return plain


@dataclass(frozen=True, slots=True)
class Source:
    """One place that a weight file can be had from.

    kind ``bundled`` (in the package), ``path`` (beside the manifest), ``hf`` (`repo` at the
    40-hex `revision`) or ``url``.
    """

    kind: str
    path: str = ""
    repo: str = ""
    revision: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        needed = {"bundled": (), "path": ("path",), "hf": ("repo", "revision"), "url": ("url",)}
        if self.kind not in needed:
            raise ContractError(f"source kind {self.kind!r} is not one of {sorted(needed)}")
        missing = [name for name in needed[self.kind] if not getattr(self, name)]
        if missing:
            raise ContractError(f"source of kind {self.kind!r} lacks {', '.join(missing)}")
        if self.kind == "hf" and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ContractError(
                f"Hugging Face source {self.repo!r} must pin a 40-hex commit, not {self.revision!r}"
            )


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One version of one model, as the manifest and the ONNX metadata tell it.

    The identity of the bytes (`sha256`, `size_bytes`), the `sources` and the `test_vectors` stand
    in the manifest alone: a file cannot contain its own hash.

    Attributes
    ----------
    classes : tuple of str
        Names of the outputs, in order.
    calibration : dict
        ``{"method": "temperature", "temperature": T, ...}``; probabilities are
        ``softmax(logits / T)``.
    thresholds : list of dict
        Decision thresholds at stated false positive rates, with intervals.
    reference : dict
        Statistics of the training data for the out-of-distribution flag and the drift check.
    metrics : dict
        Measured figures, each with n and evidence.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    contract: InputContract
    calibration: Mapping[str, Any] = field(default_factory=dict)
    thresholds: tuple[Mapping[str, Any], ...] = ()
    conformal: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    licence: str = ""
    citation: str = ""
    parent: str = ""
    status: str = "stable"
    successor: str = ""
    opset: int = 0
    file: str = ""
    sha256: str = ""
    size_bytes: int = 0
    sources: tuple[Source, ...] = ()
    test_vectors: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        object.__setattr__(self, "sources", tuple(self.sources))
        problems = []
        if not _NAME.fullmatch(self.name):
            problems.append(f"name {self.name!r} must be lower-case letters, digits, '.', '_' and '-'")
        if not _VERSION.fullmatch(self.version):
            problems.append(f"version {self.version!r} must look like 1.2.0")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes) or not all(self.classes):
            problems.append(f"classes must be two or more different names, not {list(self.classes)}")
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            problems.append(f"sha256 must be 64 hex digits, not {self.sha256!r}")
        if self.status not in ("stable", "experimental", "deprecated"):
            problems.append(f"status {self.status!r} must be stable, experimental or deprecated")
        for name in ("file", "card"):
            value = getattr(self, name)
            if value and (value.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", value) or ":" in value):
                problems.append(f"{name} {value!r} must stay in the manifest's folder")
        temperature = self.calibration.get("temperature", 1.0)
        if not isinstance(temperature, int | float) or not 0 < temperature < 1e3:
            problems.append(f"calibration temperature must be a positive number, not {temperature!r}")
        if problems:
            raise ContractError(f"model {self.name or '?'}: " + "; ".join(problems))

    @property
    def id(self) -> str:
        """``name@version``, as it stands in every score table."""
        return f"{self.name}@{self.version}"

    @property
    def temperature(self) -> float:
        """Divisor of the logits."""
        return float(self.calibration.get("temperature", 1.0))

    @classmethod
    def from_dict(cls, data: Any, where: str = "model record") -> Self:
        """Parse and validate; raises `ContractError`."""
        values = _fields_of(cls, data, where)
        values["contract"] = InputContract.from_dict(values.get("contract"), f"{where}: contract")
        try:
            values["sources"] = tuple(
                Source(**_fields_of(Source, source, f"{where}: sources"))
                for source in values.get("sources", ())
            )
            return cls(**values)
        except TypeError as error:
            raise ContractError(f"{where}: {error}") from error

    @classmethod
    def from_metadata(cls, text: str, where: str) -> Self:
        """Parse the ONNX metadata property `METADATA_KEY`."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ContractError(f"{where}: the ONNX metadata is not JSON ({error})") from error
        return cls.from_dict(data, where)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as in the manifest."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def to_metadata(self) -> str:
        """JSON for the ONNX metadata: all but what only the manifest knows."""
        data = {key: value for key, value in self.to_dict().items() if key not in MANIFEST_ONLY}
        return json.dumps(data, sort_keys=True)

    def differences(self, other: ModelRecord) -> list[str]:
        """Names of the fields, known to both manifest and ONNX metadata, that differ."""
        mine, theirs = json.loads(self.to_metadata()), json.loads(other.to_metadata())
        return [key for key in mine if mine[key] != theirs[key]]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
