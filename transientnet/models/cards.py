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

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
_UNTOLD = "Not told by the run that made this model."


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
    path.write_text(model_card(record, pictures=links), encoding="utf-8")
    return path


def model_card(record: ModelRecord, *, pictures: Sequence[str] = ()) -> str:
    """A record's model card in Markdown, with the header that Hugging Face reads."""
    training = dict(record.training)
    lines = [f"# {record.id}", "", record.description or _UNTOLD, ""]
    lines += _bullets(
        {
            "Classes": ", ".join(record.classes),
            "Status": record.status + (f", use {record.successor}" if record.successor else ""),
            "Adapted from": record.parent,
            "Licence": record.licence or "not told",
        }
    )
    lines += ["", "## Use", "", "```bash", f"transientnet score FILES... -m {record.id}", "```", ""]
    lines += _input(record)
    for key, title in _SECTIONS:
        lines += [f"## {title}", "", *_text(training.pop(key, "")), ""]
    reproduce = training.pop("reproduce", "")
    lines += [
        "## Metrics",
        "",
        *(_block(record.metrics, record.classes, 3) if record.metrics else [_UNTOLD]),
        "",
    ]
    lines += _probabilities(record)
    lines += ["## Failures", ""]
    for picture in pictures:
        caption = Path(picture).stem.replace("_", " ").replace("-", " ")
        lines += [f"![{caption}]({picture})", ""]
    if not pictures:
        lines += ["No pictures were made by the run.", ""]
    if training:
        lines += ["## Training", "", *_text(training), ""]
    lines += ["## How to reproduce", ""]
    if isinstance(reproduce, str) and reproduce:
        lines += ["<!-- not run: needs the survey data, and hours -->", "```bash", reproduce, "```", ""]
    else:
        lines += _text(reproduce)
    lines += ["", "## Citation", "", *_text(record.citation), ""]
    lines += ["## Identity", "", *_bullets({"sha256": record.sha256, "Size": record.size_bytes})]
    return _with_header([record], "\n".join(lines).rstrip() + "\n")


def registry_card(records: Sequence[ModelRecord], address: str = "") -> str:
    """The front page of a registry: its models, and how to use them."""
    where = address or "ADDRESS-OF-THIS-FOLDER"
    rows = [
        [
            f"[{r.id}]({r.card})" if r.card else r.id,
            ", ".join(r.classes),
            r.status,
            r.licence or "not told",
            r.description,
        ]
        for r in records
    ]
    first = records[0].id
    lines = [
        "# Models for transientnet",
        "",
        *_table(["model", "classes", "status", "licence", ""], rows),
        "",
    ]
    lines += ["```", f"transientnet score FILES... -m {where}#{first}", "```", ""]
    lines += ["or by name, on a machine that knows this registry:", ""]
    lines += [
        "```",
        f"export TRANSIENTNET_REGISTRY={where}",
        f"transientnet score FILES... -m {first}",
        "```",
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


def _input(record: ModelRecord) -> list[str]:
    contract = record.contract
    low, high = contract.fwhm_px
    return [
        "## Input",
        "",
        *_bullets(
            {
                "Stamps": f"{', '.join(contract.channels)}; {contract.size}×{contract.size} pixels",
                "Trained at": f"{contract.pixel_scale_arcsec:g} arcsec per pixel",
                "Seeing known": f"FWHM {low:g} to {high:g} px; broader stamps are shrunk",
                "Missing reference": contract.missing_reference,
                "Missing difference": contract.missing_difference,
                "Normalisation": f"{contract.normalisation}, softening {contract.softening:g}",
            }
        ),
        "",
    ]


def _probabilities(record: ModelRecord) -> list[str]:
    lines = ["## Probabilities", "", *_text(record.calibration), ""]
    for threshold in record.thresholds:
        lines += [f"- Threshold: {_inline(threshold)}"]
    if record.conformal:
        lines += [f"- Prediction sets: {_inline(record.conformal)}"]
    return [*lines, ""] if lines[-1] else lines


def _block(block: Mapping[str, Any], classes: Sequence[str], level: int) -> list[str]:
    """One set of figures: what is told of it, its figures, and tables per class and brightness."""
    figures = {key: value for key, value in block.items() if _is_figure(value)}
    tables = {"per_class", "by_brightness", "confusion"}
    nested = {k: v for k, v in block.items() if isinstance(v, Mapping) and k not in {*figures, *tables}}
    told = {k: v for k, v in block.items() if k not in {*figures, *nested, *tables}}
    lines = [*_bullets({_title(key): _inline(value) for key, value in told.items()}), ""]
    if figures:
        rows = [[_title(name), *_figure(figure)] for name, figure in figures.items()]
        lines += [*_table(["figure", "value", "95 % interval", "n"], rows), ""]
    if per_class := block.get("per_class"):
        rows = [
            [name, _title(key), *_figure(figure)]
            for name, its in per_class.items()
            for key, figure in its.items()
            if _is_figure(figure)
        ]
        lines += ["Per class:", "", *_table(["class", "figure", "value", "95 % interval", "n"], rows), ""]
    if by_brightness := block.get("by_brightness"):
        rows = [
            [name, f"{bin_['from']:.3g} to {bin_['to']:.3g}", *_figure({**bin_, "value": bin_["recall"]})]
            for name, bins in by_brightness.items()
            for bin_ in bins
        ]
        lines += [
            "Per brightness:",
            "",
            *_table(["class", "brightness", "recall", "95 % interval", "n"], rows),
            "",
        ]
    if confusion := block.get("confusion"):
        judged = [f"judged {name}" for name in classes]
        rows = [[name, *(f"{n:g}" for n in row)] for name, row in zip(classes, confusion, strict=True)]
        lines += ["Confusion:", "", *_table(["labelled", *judged], rows), ""]
    for name, value in nested.items():
        lines += [f"{'#' * level} {_title(name)}", "", *_block(value, classes, min(level + 1, 6))]
    return lines


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value


def _figure(figure: Mapping[str, Any]) -> list[str]:
    low, high = figure.get("low"), figure.get("high")
    interval = "" if low is None or high is None else f"{_inline(low)} to {_inline(high)}"
    return [_inline(figure["value"]), interval, _inline(figure.get("n", ""))]


def _title(key: str) -> str:
    if key in ("auc", "mcc", "n"):
        return {"auc": "AUC", "mcc": "Matthews correlation", "n": "n"}[key]
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
    return [_inline(value)] if value else [_UNTOLD]


def _bullets(items: Mapping[str, Any]) -> list[str]:
    return [f"- {name}: {value}" for name, value in items.items() if value not in ("", 0)]


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(header), line(["---"] * len(header)), *(line(row) for row in rows)]
