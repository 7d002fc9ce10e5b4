"""One HTML file from sections."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape

from ..files.atomic import write_atomically

__all__ = ["Report", "heat_table", "paragraph", "picture_wall", "table", "verdict"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #3d444d; --page: #fff; --line: #d0d7de;
  --head: #f0f3f6; --grid: #e2e6ea; --link: #0b4f8a; --heat: 0, 114, 178; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #b6c0cb; --page: #12161c; --line: #3a424d; --head: #1c222b;
    --grid: #2a313b; --link: #8cc4ff; --heat: 86, 180, 233; }
  .chart [stroke="#0072b2"] { stroke: #56b4e9; } .chart [fill="#0072b2"] { fill: #56b4e9; }
  .chart [stroke="#d55e00"] { stroke: #ff9a4d; } .chart [fill="#d55e00"] { fill: #ff9a4d; }
  .chart [stroke="#00795a"] { stroke: #3fc79a; } .chart [fill="#00795a"] { fill: #3fc79a; }
  .chart [stroke="#a1457c"] { stroke: #e39ac4; } .chart [fill="#a1457c"] { fill: #e39ac4; }
  .chart [stroke="#8a6100"] { stroke: #f0c03c; } .chart [fill="#8a6100"] { fill: #f0c03c; }
  .chart [stroke="#444444"] { stroke: #c2c9d1; } .chart [fill="#444444"] { fill: #c2c9d1; }
}
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3, li { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2rem 0 .6rem; border-bottom: 2px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: 0; list-style: none; }
.table { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { background: var(--head); white-space: normal; vertical-align: bottom; }
.small { color: var(--soft); font-size: .9rem; }
.verdict { font-size: 1.15rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 1.5rem 1rem; }
figure { margin: 0; }
.chart { max-width: 32rem; }
.chart svg[role=img] { width: 100%; height: auto; display: block; }
.chart text { font: 14px system-ui, sans-serif; fill: var(--ink); }
.chart .axis { font-size: 15px; }
.grid { stroke: var(--grid); } .diagonal { stroke: var(--soft); stroke-dasharray: 4 4; fill: none; }
.legend { list-style: none; padding: 0; margin: .2rem 0 0; display: flex; flex-wrap: wrap;
  gap: .1rem 1rem; }
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13.5rem), 1fr));
  gap: .9rem; }
.wall img { width: 100%; aspect-ratio: 193 / 63; image-rendering: pixelated; display: block;
  background: #ebebeb; }
.wall figcaption { font-size: .85rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { th, td { white-space: normal; padding: .3rem .4rem; } }
@media print { nav { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


class Report:
    """A page that grows section by section.

    Parameters
    ----------
    title : str
    lead : str
        One paragraph of plain text below the title.
    """

    def __init__(self, title: str, lead: str = ""):
        self.title, self.lead = title, lead
        self._sections: list[tuple[str, str]] = []

    def add_section(self, heading: str, *parts: str) -> Report:
        """Append a section; `parts` are HTML, made by `table`, `chart`, `paragraph` or `picture_wall`."""
        self._sections.append((heading, "\n".join(parts)))
        return self

    def add_sections(self, sections: Iterable[tuple[str, Sequence[str]]]) -> Report:
        """Append several, as `evaluation_sections` gives them."""
        for heading, parts in sections:
            self.add_section(heading, *parts)
        return self

    def html(self) -> str:
        """The whole page."""
        contents = "".join(
            f'<li><a href="#s{k}">{escape(heading)}</a></li>' for k, (heading, _) in enumerate(self._sections)
        )
        body = "\n".join(
            f'<section aria-labelledby="s{k}"><h2 id="s{k}">{escape(heading)}</h2>\n{content}\n</section>'
            for k, (heading, content) in enumerate(self._sections)
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(self.title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
            f"<body><header><h1>{escape(self.title)}</h1>{paragraph(self.lead) if self.lead else ''}"
            f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header>\n'
            f"<main>{body}</main></body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page; it appears whole or not at all."""
        write_atomically(path, self.html())


def paragraph(text: str, small: bool = False) -> str:
    """Plain text as a paragraph."""
    kind = ' class="small"' if small else ""
    return f"<p{kind}>{escape(text)}</p>"


def verdict(sentences: Iterable[str]) -> str:
    """The outcome in words, above everything else; each sentence comes from the figures below it."""
    return f'<p class="verdict">{escape(" ".join(sentences))}</p>'


def heat_table(
    header: Sequence[str], rows: Iterable[tuple[str, Sequence[tuple[str, float]]]], caption: str
) -> str:
    """A table whose cells (text, share from 0 to 1) are shaded by their share."""
    shaded = [[name, *(_Shaded(text, share) for text, share in cells)] for name, cells in rows]
    return table(header, shaded, caption)


class _Shaded:
    def __init__(self, text: str, share: float) -> None:
        self.text, self.share = text, share

    def __str__(self) -> str:
        return self.text

    @property
    def style(self) -> str:
        # At most half opaque, so that the text keeps its contrast in both colour schemes.
        return f' style="background:rgba(var(--heat),{0.5 * self.share:.2f})"'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    """A table of plain cells; the first cell of each row names it."""
    head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in header)
    body = "".join(
        "<tr>"
        + f'<th scope="row">{escape(str(row[0]))}</th>'
        + "".join(f"<td{getattr(cell, 'style', '')}>{escape(str(cell))}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    # Focusable, so that a keyboard can scroll what a phone's width cuts.
    label = escape(caption, quote=True)
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def picture_wall(pictures: Iterable[tuple[str, str]]) -> str:
    """Pictures (address, caption) as a wall; the caption is also the alternative text."""
    return (
        '<div class="wall">'
        + "".join(
            f'<figure><img src="{escape(address, quote=True)}" alt="{escape(caption, quote=True)}" '
            f'decoding="async"><figcaption>{escape(caption)}</figcaption></figure>'
            for address, caption in pictures
        )
        + "</div>"
    )
