"""Model cards, written from a record's own data: nothing is claimed that the run did not store.

A card reads two fields of the record, laid out so:

``training``
    ``data``, ``labels``, ``evidence``, ``circular``, ``split``, ``reproduce``: text, or a mapping of
    names to text or numbers. ``evidence`` says why the labels can be believed; ``circular`` says
    which figures rest on what the labels themselves were made from; ``reproduce`` is the command.
    Other keys are listed under "Training".
``metrics``
    A block. Keys of a block: a **figure** is ``{"value", "low", "high"}`` with an optional ``"n"``
    (95 % interval); ``per_class`` maps a class to figures; ``by_brightness`` maps a class to a list
    of ``{"from", "to", "recall", "low", "high", "n"}``; ``confusion`` is a K×K list, rows true;
    another mapping is a block of its own, for instance one per test set; the rest (``n``,
    ``n_groups``, ``evidence``) is listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import write_atomically
from .record import ModelRecord

__all__ = ["CARD_NAME", "model_card", "registry_card", "write_card"]

CARD_NAME = "MODEL_CARD.md"

_SECTIONS = (
    ("data", "Data"),
    ("labels", "Labels"),
    ("evidence", "Evidence for the labels"),
    ("circular", "What is circular"),
    ("split", "Split"),
)
_UNKNOWN = "Not recorded by the run that made this model."


def write_card(
    record: ModelRecord, folder: Path, *, pictures: Iterable[Path] = (), name: str = CARD_NAME
) -> Path:
    """Write a record's model card.

    Parameters
    ----------
    record : ModelRecord
    folder : Path
        Where the card goes; pictures are linked relative to it.
    pictures : iterable of Path
        Pictures of failures, each in `folder` or below; the file's name is its caption.
    name : str
        File name of the card.

    Returns
    -------
    Path
    """
    links = [picture.resolve().relative_to(folder.resolve()).as_posix() for picture in pictures]
    path = folder / name
    write_atomically(path, model_card(record, pictures=links))
    return path


def model_card(record: ModelRecord, *, pictures: Sequence[str] = ()) -> str:
    """A record's model card in Markdown, with the header that Hugging Face reads."""
    training, contract = dict(record.training), record.contract
    low, high = contract.fwhm_px
    reproduce = training.pop("reproduce", "")
    sections = [(title, _text(training.pop(key, ""))) for key, title in _SECTIONS]
    stated: list[Any] = [("Threshold", each) for each in record.thresholds]
    stated += [("Prediction sets", record.conformal)] if record.conformal else []
    captions = {name: Path(name).stem.replace("_", " ").replace("-", " ") for name in pictures}
    sections = [
        ("Use", ["```bash", f"transientnet score FILES... -m {record.id}", "```"]),
        (
            "Input",
            _bullets(
                {
                    "Stamps": f"{', '.join(contract.channels)}; {contract.size}×{contract.size} pixels",
                    "Trained at": f"{contract.pixel_scale_arcsec:g} arcsec per pixel",
                    "Seeing known": f"FWHM {low:g} to {high:g} px; broader stamps are shrunk",
                    "Missing reference": contract.missing_reference,
                    "Missing difference": contract.missing_difference,
                    "Normalisation": f"{contract.normalisation}, softening {contract.softening:g}",
                }
            ),
        ),
        *sections,
        ("Metrics", _block(record.metrics, record.classes, 3) if record.metrics else [_UNKNOWN]),
        (
            "Probabilities",
            [*_text(record.calibration), "", *(f"- {name}: {_inline(value)}" for name, value in stated)],
        ),
        (
            "Failures",
            [line for name, caption in captions.items() for line in (f"![{caption}]({name})", "")]
            or ["The run made no pictures of failures."],
        ),
        ("Training", _text(training) if training else []),
        (
            "How to reproduce",
            ["<!-- not run: needs the survey data, and hours -->", "```bash", reproduce, "```"]
            if isinstance(reproduce, str) and reproduce
            else _text(reproduce),
        ),
        ("Citation", _text(record.citation)),
        ("Identity", _bullets({"sha256": record.sha256, "Size": record.size_bytes})),
    ]
    lines = [f"# {record.id}", "", record.description or _UNKNOWN, ""]
    lines += _bullets(
        {
            "Classes": ", ".join(record.classes),
            "Status": record.status + (f", use {record.successor}" if record.successor else ""),
            "Adapted from": record.parent,
            "Licence": record.licence or "not stated",
        }
    )
    for title, body in sections:
        lines += ["", f"## {title}", "", *body] if body else []
    return _with_header([record], re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n")


def registry_card(records: Sequence[ModelRecord], address: str = "") -> str:
    """The front page of a registry: its models, and how to use them."""
    where, first = address or "ADDRESS-OF-THIS-FOLDER", records[0].id
    header = ["model", "classes", "status", "licence", ""]
    rows = []
    for r in records:
        name = f"[{r.id}]({r.card})" if r.card else r.id
        rows.append([name, ", ".join(r.classes), r.status, r.licence or "not stated", r.description])
    lines = [
        *("# Models for transientnet", "", *_table(header, rows), ""),
        *("```", f"transientnet score FILES... -m {where}#{first}", "```", ""),
        *("or by name, on a machine that knows this registry:", ""),
        *("```", f"export TRANSIENTNET_REGISTRY={where}", f"transientnet score FILES... -m {first}", "```"),
    ]
    return _with_header(records, "\n".join(lines) + "\n")


def _with_header(records: Sequence[ModelRecord], body: str) -> str:
    from huggingface_hub import ModelCard, ModelCardData

    licences = {record.licence.lower() for record in records if record.licence}
    parents = {record.parent for record in records if record.parent}
    data = ModelCardData(
        license=licences.pop() if len(licences) == 1 else None,
        library_name="transientnet",
        pipeline_tag="image-classification",
        tags=["astronomy", "transients", "onnx"],
        adapted_from=sorted(parents) or None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}", ignore_metadata_errors=False).content)


def _block(block: Mapping[str, Any], classes: Sequence[str], level: int) -> list[str]:
    """One set of figures: what it is of, its figures, and tables per class and brightness."""
    figures = {key: value for key, value in block.items() if _is_figure(value)}
    tables = {"per_class", "by_brightness", "confusion"}
    nested = {k: v for k, v in block.items() if isinstance(v, Mapping) and k not in {*figures, *tables}}
    rest = {k: v for k, v in block.items() if k not in {*figures, *nested, *tables}}
    lines = [*_bullets({_title(key): _inline(value) for key, value in rest.items()}), ""]
    per_class = [
        [name, _title(key), *_figure(figure)]
        for name, its in block.get("per_class", {}).items()
        for key, figure in its.items()
        if _is_figure(figure)
    ]
    by_brightness = [
        [name, f"{bin_['from']:.3g} to {bin_['to']:.3g}", *_figure({**bin_, "value": bin_["recall"]})]
        for name, bins in block.get("by_brightness", {}).items()
        for bin_ in bins
    ]
    confusion = [
        [name, *(f"{n:g}" for n in row)]
        for name, row in zip(classes, block.get("confusion", ()), strict=False)
    ]
    value = ["value", "95 % interval", "n"]
    for title, header, rows in (
        ("", ["figure", *value], [[_title(name), *_figure(figure)] for name, figure in figures.items()]),
        ("Per class:", ["class", "figure", *value], per_class),
        ("Per brightness:", ["class", "brightness", "recall", *value[1:]], by_brightness),
        ("Confusion:", ["labelled", *(f"judged {name}" for name in classes)], confusion),
    ):
        lines += [title, "", *_table(header, rows), ""] if rows else []
    for name, inner in nested.items():
        lines += [f"{'#' * level} {_title(name)}", "", *_block(inner, classes, min(level + 1, 6))]
    return lines


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value


def _figure(figure: Mapping[str, Any]) -> list[str]:
    low, high = figure.get("low"), figure.get("high")
    interval = "" if low is None or high is None else f"{_inline(low)} to {_inline(high)}"
    return [_inline(figure["value"]), interval, _inline(figure.get("n", ""))]


def _title(key: str) -> str:
    if key in ("auc", "mcc", "n", "n_groups"):
        return {"auc": "AUC", "mcc": "Matthews correlation", "n": "n", "n_groups": "Sky objects"}[key]
    text = str(key).replace("_", " ")
    return text[:1].upper() + text[1:]


def _inline(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_title(key).lower()} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_inline(item) for item in value)
    return "not known" if value is None else str(value)


def _text(value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        return _bullets({_title(key): _inline(item) for key, item in value.items()})
    if isinstance(value, list | tuple) and value:
        return [f"- {_inline(item)}" for item in value]
    return [_inline(value)] if value else [_UNKNOWN]


def _bullets(items: Mapping[str, Any]) -> list[str]:
    return [f"- {name}: {value}" for name, value in items.items() if value not in ("", 0)]


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(header), line(["---"] * len(header)), *(line(row) for row in rows)]
