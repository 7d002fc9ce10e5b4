"""Put a run's products where users find them: weights, manifest, cards and the table of results.

All of it comes from the one run, so weights, card, manifest and table cannot disagree.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transientnet.models.registry.manifest import Manifest

from .tables import by_family, headline, probabilities, table, when_wrong

__all__ = ["install", "replace_between"]

ROOT = Path(__file__).resolve().parent.parent

_BEGIN, _END = "<!-- begin: {} -->", "<!-- end: {} -->"


def install(run: Path) -> None:
    """Copy `run` into the repository, and rewrite what is generated in the README and in the benchmarks.

    Other versions stay, and the run's becomes the default.
    """
    weights, listed = ROOT / "transientnet" / "weights", ROOT / "weights_manifest.json"
    made, present = Manifest.read(run / "weights_manifest.json"), Manifest.read(listed)
    ids = {record.id for record in made.records}
    kept = [record for record in present.records if record.id not in ids]
    for file in sorted((run / "weights").iterdir()):
        shutil.copyfile(file, weights / file.name)
    merged = Manifest().with_records(kept).with_records(made.records)
    listed.write_text(merged.dumps(), encoding="utf-8")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    slim = json.dumps(_slim(results), indent=1) + "\n"
    (ROOT / "training_reference" / "results.json").write_text(slim, encoding="utf-8")
    shutil.copytree(run / "model-cards", ROOT / "docs" / "model-cards", dirs_exist_ok=True)
    page = ROOT / "docs" / "benchmarks.md"
    text = replace_between(page.read_text(encoding="utf-8"), "training run", table(results))
    text = replace_between(text, "probabilities", probabilities([r.to_dict() for r in made.records]))
    text = replace_between(text, "families", by_family(results))
    page.write_text(text, encoding="utf-8")
    page = ROOT / "docs" / "explanation" / "when-it-is-wrong.md"
    text = page.read_text(encoding="utf-8")
    for section, figures in when_wrong(results, made.records[0].version).items():
        text = replace_between(text, section, figures)
    page.write_text(text, encoding="utf-8")
    readme = ROOT / "README.md"
    text = replace_between(readme.read_text(encoding="utf-8"), "figures", headline(results["models"]))
    readme.write_text(text, encoding="utf-8")


def replace_between(text: str, name: str, body: str) -> str:
    """Replace what stands between the two markers of `name`."""
    begin, end = _BEGIN.format(name), _END.format(name)
    if begin not in text or end not in text:
        raise SystemExit(f"no markers {begin} … {end} in the page")
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n\n{body.strip()}\n\n{end}{rest.split(end, 1)[1]}"


def _slim(results: dict[str, Any]) -> dict[str, Any]:
    """The results without the curves, which take most of the room."""
    return {
        **{name: part for name, part in results.items() if name != "models"},
        "models": {
            head: {
                name: {k: v for k, v in part.items() if k != "curves"} if isinstance(part, dict) else part
                for name, part in sets.items()
            }
            for head, sets in results["models"].items()
        },
    }
