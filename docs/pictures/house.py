"""Draw the rooms of the package and who imports whom, from the code as it is: ``docs/images/house.svg``.

python docs/pictures/house.py
"""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "transientnet"
WAY = ("readers", "prepare", "models", "results")
"""Rooms that a stamp passes on its way from a file to an answer."""
WIDTH, ROW, BOX = 860, 46, 170


def rooms() -> list[str]:
    """Rooms and root modules, highest first, in the order that the import contract fixes."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]["layers"]
    return [room for layer in layers for room in layer.replace(" ", "").split("|")]


def files_of(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imports_of(path: Path, known: set[str]) -> set[str]:
    """Rooms that a file imports from."""
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            found |= {name for name in names if name in known}
    return found


def draw() -> str:
    names = rooms()
    top = {name: 20 + k * ROW for k, name in enumerate(names)}
    arrows = {
        (name, other)
        for name in names
        for path in files_of(name)
        for other in imports_of(path, set(names))
        if other != name
    }
    parts = []
    left, right = 250, 250 + BOX
    for name, other in sorted(arrows, key=lambda pair: top[pair[1]] - top[pair[0]]):
        start, end = top[name] + 17, top[other] + 17
        reach = 18 + 0.45 * (end - start)
        on_way = name in WAY and other in WAY
        x = right if names.index(name) % 2 else left
        bend = x + reach if x == right else x - reach
        style = "way" if on_way else "arrow"
        parts.append(
            f'<path class="{style}" d="M{x} {start} C{bend:.0f} {start} {bend:.0f} {end} {x} {end}"/>'
        )
    for name in names:
        lines = sum(path.read_text(encoding="utf-8").count("\n") for path in files_of(name))
        count = len(files_of(name))
        size = f"{count} {'file' if count == 1 else 'files'}, {lines:,} lines"
        kind = "box way" if name in WAY else "box"
        parts.append(
            f'<rect class="{kind}" x="{left}" y="{top[name]}" width="{BOX}" height="34" rx="5"/>'
            f'<text x="{left + 10}" y="{top[name] + 22}">{escape(name)}</text>'
            f'<text class="small" x="{WIDTH - 12}" y="{top[name] + 22}" text-anchor="end">{size}</text>'
        )
    height = 20 + len(names) * ROW
    style = (
        "text{font:15px system-ui,sans-serif;fill:#1b1f24}.small{font-size:12px;fill:#3d444d}"
        ".box{fill:#f0f3f6;stroke:#57606a}.box.way{fill:#cfe5f5;stroke:#0072b2}"
        "path{fill:none}.arrow{stroke:#57606a;opacity:.35}.way{stroke:#0072b2;stroke-width:2}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Rooms of the package, each importing only rooms below it"><style>{style}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    (ROOT / "docs" / "images" / "house.svg").write_text(draw(), encoding="utf-8")
