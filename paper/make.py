"""Make what the paper shows out of the documentation: its table, and the figure of transfer.

    python paper/make.py

No figure of the paper is typed by hand: all come from ``docs/benchmarks.md``, which the training and the
evaluation write. Run it again when that page has changed.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from training_reference.install import replace_between

PAPER = Path(__file__).resolve().parent
BENCHMARKS = PAPER.parent / "docs" / "benchmarks.md"
CURVES = {"transfer": "transfer", "zero-shot": "the bundled model, no label used", "scratch": "from scratch"}
MARKERS = {"transfer": "o", "zero-shot": "s", "scratch": "^"}

Row = dict[str, str]


def tables(name: str) -> list[list[Row]]:
    """The tables between two marks of the page, each a list of rows by column."""
    text = BENCHMARKS.read_text(encoding="utf-8")
    found = re.search(f"<!-- begin: {name} -->(.*?)<!-- end: {name} -->", text, re.S)
    assert found, f"{BENCHMARKS} has no part {name!r}"
    made = []
    for table in re.findall(r"(?:^\|.*\|\n)+", found[1], re.M):
        header, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
        ]
        made.append([dict(zip(header, row, strict=True)) for row in rows])
    return made


def cross_validated() -> str:
    """Figures of the bundled models on inspected ZTF candidates."""
    lines = ["| model | candidates | AUC | balanced accuracy |", "| --- | --- | --- | --- |"]
    for row in tables("training run")[0]:
        if row["labels"].startswith("vetted"):
            cells = (row["model"], row["n (objects)"].split()[0], row["AUC"], row["balanced accuracy"])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def transfer(path: Path) -> None:
    """AUC and accuracy on DECam candidates against the number of labels, as points with intervals."""
    rows = tables("transfer realbogus")[0]
    amounts = list(dict.fromkeys(row["Labels per class"] for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3), layout="constrained")
    for axis, quantity in zip(axes, ("AUC", "Accuracy"), strict=True):
        for shift, (kind, label) in enumerate(CURVES.items()):
            cells = [row[quantity] for row in rows if row[""] == kind]
            value, low, high = zip(*(map(float, re.findall(r"[\d.]+", cell)) for cell in cells), strict=True)
            spans = [
                [v - a for v, a in zip(value, low, strict=True)],
                [b - v for v, b in zip(value, high, strict=True)],
            ]
            places = [k + 0.15 * (shift - 1) for k in range(len(amounts))]
            axis.errorbar(places, value, spans, fmt=MARKERS[kind], ms=5, capsize=2, label=label)
        axis.set_xticks(range(len(amounts)), amounts)
        axis.set_xlabel("labels per class")
        axis.set_ylabel(quantity if quantity == "AUC" else "accuracy at 0.5")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    # No date and no version: the same figure gives the same file.
    figure.savefig(path, dpi=160, metadata={"Software": None})


def main() -> None:
    """Write the figure, and the table into the text."""
    transfer(PAPER / "transfer.png")
    page = PAPER / "paper.md"
    text = replace_between(page.read_text(encoding="utf-8"), "table", cross_validated())
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
