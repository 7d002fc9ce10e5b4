"""The draft of the paper: figures of the documentation, citations that exist, the journal's form."""

from __future__ import annotations

import re
import runpy

import pytest
from browsing import ROOT

PAPER = ROOT / "paper"
SECTIONS = [
    "Summary",
    "Statement of need",
    "State of the field",
    "Software design",
    "Research impact statement",
    "AI usage disclosure",
    "References",
]


def test_its_figures_are_those_of_the_benchmarks() -> None:
    pytest.importorskip("matplotlib")
    made = runpy.run_path(str(PAPER / "make.py"))
    text = (PAPER / "paper.md").read_text(encoding="utf-8")
    assert made["cross_validated"]() in text, "run: python paper/make.py"
    assert made["cross_validated"]().count("\n") >= 4
    for name in re.findall(r"\]\((\S+\.png)\)", text):
        assert (PAPER / name).read_bytes().startswith(b"\x89PNG")


def test_the_figure_is_made_of_the_tables(tmp_path: object) -> None:
    pytest.importorskip("matplotlib")
    made = runpy.run_path(str(PAPER / "make.py"))
    made["transfer"](f"{tmp_path}/transfer.png")
    rows = made["tables"]("transfer realbogus")[0]
    assert {"transfer", "zero-shot", "scratch"} <= {row[""] for row in rows}


def test_its_form() -> None:
    text = (PAPER / "paper.md").read_text(encoding="utf-8")
    head, body = text.split("---\n", 2)[1:]
    for field in ("title:", "tags:", "authors:", "affiliations:", "date:", "bibliography: paper.bib"):
        assert f"\n{field}" in f"\n{head}"
    titles = re.findall(r"^# (.+)", body, re.M)
    assert [title for title in titles if title in SECTIONS] == SECTIONS
    assert 750 <= len(body.split()) <= 1750
    entries = set(re.findall(r"^@\w+\{(\w+),", (PAPER / "paper.bib").read_text(encoding="utf-8"), re.M))
    cited = set(re.findall(r"@(\w+)", re.sub(r"\[#|\\autoref\{.*?\}", "", body)))
    assert cited == entries
