"""What a model is and what it gives, as its manifest and the metadata of its ONNX file describe it."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ..errors import ContractError
from ..files.paths import is_inside
from ..files.strict_json import fields_of, parse_json, plain
from ..prepare.contract import InputContract

__all__ = ["METADATA_KEY", "STATUSES", "ModelRecord", "Source"]

METADATA_KEY = "transientnet"
"""Name of the ONNX metadata property that holds the record as JSON."""

STATUSES = ("stable", "experimental", "deprecated")

MANIFEST_ONLY = ("file", "sha256", "size_bytes", "sources", "test_vectors", "card", "status", "successor")
"""Fields that may change, or are only known, once the file is written: in the manifest alone."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_VECTOR_KEYS = {"file", "sha256", "size_bytes", "tolerance"}


@dataclass(frozen=True, slots=True)
class Source:
    """One place to fetch a weight file from.

    Attributes
    ----------
    kind : {"path", "bundled", "hf", "url"}
        Beside the manifest; in the package; in a Hugging Face repository; at an address.
    path : str
        For ``path``: relative to the manifest. For ``hf``: relative to the repository. Where it is
        empty, the record's `file`.
    repo, revision : str
        For ``hf``: ``org/repo`` and the 40-hex commit.
    url : str
        For ``url``: ``https://…``, ``http://…`` or ``doi:10.…/…``.
    """

    kind: str
    path: str = ""
    repo: str = ""
    revision: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        needed = {"bundled": (), "path": (), "hf": ("repo", "revision"), "url": ("url",)}
        if not all(isinstance(getattr(self, f.name), str) for f in dataclasses.fields(self)):
            raise ContractError("source: every field must be a string")
        if self.kind not in needed:
            raise ContractError(f"source: kind {self.kind!r} is not one of {sorted(needed)}")
        if missing := [name for name in needed[self.kind] if not getattr(self, name)]:
            raise ContractError(f"source of kind {self.kind!r} lacks {', '.join(missing)}")
        if self.path and not is_inside(self.path):
            raise ContractError(f"source: path {self.path!r} must stay in the manifest's folder")
        if self.kind == "hf" and not _COMMIT.fullmatch(self.revision):
            raise ContractError(
                f"Hugging Face source {self.repo!r} must pin a 40-hex commit, not {self.revision!r}"
            )
        if self.kind == "url" and not self.url.startswith(("https://", "http://", "doi:")):
            raise ContractError(f"source: url must start with https://, http:// or doi:, not {self.url!r}")

    def to_dict(self) -> dict[str, str]:
        """Plain JSON types; what is empty is left out."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name)}


@dataclass(frozen=True, slots=True, repr=False)
class ModelRecord:
    """One version of one model, as its manifest and the metadata of its ONNX file describe it.

    The identity of the bytes (`sha256`, `size_bytes`), the `sources`, the `test_vectors`, the `card`
    and the `status` are in the manifest alone: a file cannot contain its own hash, and a version
    can be deprecated after it was published. Everything else is in both, and must be the same.

    Attributes
    ----------
    name, version : str
        ``realbogus`` and ``1.2.0``.
    classes : tuple of str, length K
        Names of the outputs, in order.
    contract : InputContract
        How triplets must look.
    calibration : dict
        ``{"method": "temperature", "temperature": T, ...}``; probabilities are
        ``softmax(logits / T + bias)``.
    thresholds : tuple of dict
        Decision thresholds at stated false positive rates, with intervals.
    conformal : dict
        Cutoffs of prediction sets at stated levels, with their measured coverage.
    reference : dict
        Statistics of the training data for the out-of-distribution flag and the drift check.
    metrics, training : dict
        Measured figures, each with n and evidence, and how the model was made; `cards` documents
        the layout that a model card is written from.
    network : dict
        Architecture: what a network must be built with to take these weights.
    description, licence, citation : str
        What the model does, what may be done with it, and what to cite, for the model card.
    parent : str
        ``name@version`` that the model was adapted from.
    status : {"stable", "experimental", "deprecated"}
        How far to rely on it; a deprecated model still runs.
    successor : str
        ``name`` or ``name@version`` that replaces a deprecated version.
    opset : int
        Version of the ONNX operators.
    file, sha256 : str
        Name of the weight file, and its hash in hex.
    size_bytes : int
        Its size.
    sources : tuple of Source
        Where to fetch it, tried in order.
    test_vectors : dict
        ``{"file", "sha256", "size_bytes", "tolerance"}``, or empty; see `vectors`.
    card : str
        File name of the model card.
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
        for name in ("classes", "thresholds", "sources"):
            if isinstance(getattr(self, name), str | Mapping):
                raise ContractError(f"model {self.name!r}: {name} must be a list")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if problems := self._wrong_types() or self._wrong_values():
            raise ContractError(f"model {self.name or '?'}: " + "; ".join(problems))

    def _wrong_types(self) -> list[str]:
        kinds = {"str": str, "int": int, "Mapping[str, Any]": Mapping, "InputContract": InputContract}
        wrong = [
            f"{f.name} must be of type {kinds[str(f.type)].__name__}"
            for f in dataclasses.fields(self)
            if f.type in kinds and not isinstance(getattr(self, f.name), kinds[str(f.type)])
        ]
        for name, kind in (("classes", str), ("thresholds", Mapping), ("sources", Source)):
            if not all(isinstance(item, kind) for item in getattr(self, name)):
                wrong.append(f"every one of {name} must be of type {kind.__name__}")
        return wrong

    def _wrong_values(self) -> list[str]:
        wrong = []
        if not _NAME.fullmatch(self.name):
            wrong.append(f"name {self.name!r} must be lower-case letters, digits, '.', '_' and '-'")
        if not _VERSION.fullmatch(self.version):
            wrong.append(f"version {self.version!r} must look like 1.2.0")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            wrong.append(f"classes must be two or more different names, not {list(self.classes)}")
        if not all(name.strip() == name != "" and name.isprintable() for name in self.classes):
            wrong.append(f"classes must be printable names, not {list(self.classes)}")
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            wrong.append(f"sha256 must be 64 lower-case hex digits, not {self.sha256!r}")
        if self.size_bytes < 0 or self.opset < 0:
            wrong.append("size_bytes and opset must not be negative")
        if self.status not in STATUSES:
            wrong.append(f"status {self.status!r} must be one of {', '.join(STATUSES)}")
        wrong += [
            f"{name} {getattr(self, name)!r} must stay in the manifest's folder"
            for name in ("file", "card")
            if getattr(self, name) and not is_inside(getattr(self, name))
        ]
        temperature = self.calibration.get("temperature", 1.0)
        if not isinstance(temperature, int | float) or not 0 < temperature < 1e3:
            wrong.append(f"calibration temperature must be a positive number, not {temperature!r}")
        if self.test_vectors and not self._vectors_ok():
            wrong.append(f"test_vectors must hold {', '.join(sorted(_VECTOR_KEYS))}: {self.test_vectors!r}")
        return wrong

    def _vectors_ok(self) -> bool:
        if set(self.test_vectors) != _VECTOR_KEYS:
            return False
        file, sha256, size, tolerance = (
            self.test_vectors[key] for key in ("file", "sha256", "size_bytes", "tolerance")
        )
        return (
            isinstance(file, str)
            and is_inside(file)
            and isinstance(sha256, str)
            and _SHA256.fullmatch(sha256) is not None
            and isinstance(size, int)
            and size > 0
            and isinstance(tolerance, int | float)
            and 0 < tolerance <= 0.1
        )

    @property
    def id(self) -> str:
        """``name@version``, as every score table has it."""
        return f"{self.name}@{self.version}"

    @property
    def temperature(self) -> float:
        """Divisor of the logits."""
        return float(self.calibration.get("temperature", 1.0))

    def __repr__(self) -> str:
        return f"<ModelRecord {self.id}: {', '.join(self.classes)}; {self.status}>"

    def summary(self) -> str:
        """What a person wants to know first, on one screen; `to_dict` has the rest."""
        contract, (low, high) = self.contract, self.contract.fwhm_px
        rows = [
            ("classes", ", ".join(self.classes)),
            ("status", self.status + (f"; use {self.successor}" if self.successor else "")),
            ("stamps", f"{', '.join(contract.channels)}; {contract.size} x {contract.size} px"),
            ("trained at", f"{contract.pixel_scale_arcsec:g} arcsec/px, FWHM {low:g} to {high:g} px"),
            (
                "missing",
                f"reference: {contract.missing_reference}, difference: {contract.missing_difference}",
            ),
            *self._measured(),
            ("adapted from", self.parent),
            ("licence", self.licence),
            ("file", f"{self.file}, {self.size_bytes / 1e6:.2f} MB" if self.file else ""),
            ("sha256", self.sha256),
            ("card", self.card),
        ]
        lines = [self.id, *textwrap.wrap(self.description, 80, max_lines=3)]
        lines += [f"  {name:<13}{text}" for name, text in rows if text]
        return "\n".join(line if len(line) <= 80 else f"{line[:79]}…" for line in lines)

    def _measured(self) -> list[tuple[str, str]]:
        """Calibration and thresholds for `summary`; what another program left out is left out here."""
        rows = []
        with suppress(LookupError, TypeError, ValueError):
            after = self.calibration["after"]
            low, high = after["ece_interval"]
            rows.append(
                (
                    "calibration",
                    f"error {after['ece']:.3f} ({low:.3f} to {high:.3f}), n = {self.calibration['n']}",
                )
            )
        with suppress(LookupError, TypeError, ValueError):
            for name in list(dict.fromkeys(row["class"] for row in self.thresholds))[:6]:
                parts = [
                    f"{row['threshold']:.4f} at {100 * row['false_positive_rate']:g} %"
                    for row in self.thresholds
                    if row["class"] == name
                ]
                rows.append((f"p_{name}", f"threshold {', '.join(parts)} false positives"))
        return rows

    @classmethod
    def from_dict(cls, data: Any, where: str = "model record") -> Self:
        """Parse and validate; raises `ContractError`."""
        values = fields_of(cls, data, where)
        try:
            values["contract"] = InputContract.from_dict(values.get("contract"), "contract")
            values["sources"] = tuple(
                Source(**fields_of(Source, source, "sources")) for source in values.get("sources", ())
            )
            return cls(**values)
        except (TypeError, ContractError) as error:
            raise ContractError(f"{where}: {error}") from error

    @classmethod
    def from_metadata(cls, text: str | bytes, where: str) -> Self:
        """Parse the ONNX metadata property `METADATA_KEY`; raises `ContractError`."""
        return cls.from_dict(parse_json(text, f"{where}: ONNX metadata"), where)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as in the manifest."""
        values: dict[str, Any] = plain(self)
        values["sources"] = [source.to_dict() for source in self.sources]
        return values

    def to_metadata(self) -> str:
        """JSON for the ONNX metadata: all but what is in the manifest alone."""
        data = {key: value for key, value in self.to_dict().items() if key not in MANIFEST_ONLY}
        return json.dumps(data, sort_keys=True, allow_nan=False)

    def differences(self, other: ModelRecord) -> list[str]:
        """Names of the fields, known to both manifest and ONNX metadata, that differ."""
        if self == replace(other, **{name: getattr(self, name) for name in MANIFEST_ONLY}):
            return []
        mine, theirs = json.loads(self.to_metadata()), json.loads(other.to_metadata())
        return [key for key in mine if mine[key] != theirs[key]]
