"""Put a run's products where users find them: weights, manifest, cards and the table of results.

All of it comes from the one run, so weights, card, manifest and table cannot disagree.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

__all__ = ["install", "table"]

ROOT = Path(__file__).resolve().parent.parent

_BEGIN, _END = "<!-- begin: {} -->", "<!-- end: {} -->"


def install(run: Path) -> None:
    """Copy `run` into the repository, and rewrite what is generated in the README and in the benchmarks."""
    weights = ROOT / "transientnet" / "weights"
    for old in weights.glob("*"):
        old.unlink()
    for file in sorted((run / "weights").iterdir()):
        shutil.copyfile(file, weights / file.name)
    shutil.copyfile(run / "weights_manifest.json", ROOT / "weights_manifest.json")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    slim = json.dumps(_slim(results), indent=1) + "\n"
    (ROOT / "training_reference" / "results.json").write_text(slim, encoding="utf-8")
    shutil.copytree(run / "model-cards", ROOT / "docs" / "model-cards", dirs_exist_ok=True)
    page = ROOT / "docs" / "benchmarks.md"
    text = replace_between(page.read_text(encoding="utf-8"), "training run", table(results))
    manifest = json.loads((run / "weights_manifest.json").read_text(encoding="utf-8"))
    text = replace_between(text, "probabilities", probabilities(manifest["models"]))
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
        "run": results["run"],
        "models": {
            head: {
                name: {k: v for k, v in part.items() if k != "curves"} if isinstance(part, dict) else part
                for name, part in sets.items()
            }
            for head, sets in results["models"].items()
        },
    }


def _interval(value: float, low: float, high: float, percent: bool = False) -> str:
    if percent:
        return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
    return f"{value:.4f} ({low:.4f}–{high:.4f})"


def table(results: dict[str, Any]) -> str:
    """The results as Markdown: every figure with n and a 95 % interval."""
    run = results["run"]
    lines = [
        f"Run of {run['started']}: seed {run['seed']}, data sha256 `{run['data_sha256'][:16]}…`, commit "
        f"`{run['commit'][:12]}`, {run['wall_seconds'] / 60:.0f} minutes on {run['machine']}.",
        "",
        "| model | labels | n (objects) | AUC | accuracy | balanced accuracy | calibration error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for head, sets in results["models"].items():
        for name, part in sets.items():
            if not isinstance(part, dict) or "metrics" not in part or len(part["curves"]) == 0:
                continue
            metrics = part["metrics"]
            cells = [
                _interval(**metrics[key], percent=key.endswith("accuracy"))
                for key in ("auc", "accuracy", "balanced_accuracy", "calibration_error")
            ]
            count = f"{part['n']} ({part['n_groups']})"
            lines.append(" | ".join([f"| `{head}`", f"{name}: {part['evidence']}", count, *cells]) + " |")
    binary = results["models"]["realbogus"]
    lines += ["", "Recall of catalogue-matched reals (`realbogus`):", ""]
    lines += ["| rows | false positive rate | reals | bogus | recall |", "| --- | --- | --- | --- | --- |"]
    for row in binary["catalogue"]["recall"]:
        recall = _interval(row["recall"], *row["interval"], percent=True)
        cells = [row["rows"], f"{row['false_positive_rate']:.0%}", str(row["n"]), str(row["bogus"]), recall]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Recall per magnitude at 5 % false positives (`realbogus`, training labels):", ""]
    lines += ["| magnitude | n | recall |", "| --- | --- | --- |"]
    for row in binary["brightness"]:
        recall = _interval(row["recall"], *row["interval"], percent=True)
        lines.append(f"| {row['low']}–{row['high']} | {row['n']} | {recall} |")
    score = binary["vetted"]["survey_score"]
    low, high = score["gain_interval"]
    lines += [
        "",
        f"The survey's own score on the same inspected rows, where it is known (n = {score['n']}): AUC "
        f"{score['auc']:.4f}; `realbogus` on these: {score['ours']:.4f}, a difference of "
        f"{score['ours'] - score['auc']:+.4f} ({low:+.4f} to {high:+.4f}).",
    ]
    cleaning = run["cleaning"]
    before, after = (cleaning["agreement_with_inspection"][key] for key in ("catalogue rules", "cleaned"))
    lines += [
        "",
        f"Cleaning by the reference stamp changed {cleaning['changed']} morphology labels that nobody had "
        "inspected (listed with reasons in the run's `cleaned_labels.csv`). On inspected rows the catalogue "
        f"rules agree with inspection in {before['agree']} of {before['n']}, the cleaned ones in "
        f"{after['agree']} of {after['n']}.",
    ]
    return "\n".join(lines)


def headline(models: dict[str, Any]) -> str:
    """The figures that a reader of the README wants first."""
    eye, hosts, all4 = models["realbogus"]["vetted"], models["3class"]["cleaned"], models["4class"]["cleaned"]
    score = eye["survey_score"]
    three, four = (_interval(**part["metrics"]["balanced_accuracy"], percent=True) for part in (hosts, all4))
    return (
        f"- `realbogus`: AUC {_interval(**eye['metrics']['auc'])} on {eye['n']} ambiguous ZTF alerts "
        "that a vision model inspected blind, twice. The survey's own score on "
        f"the {score['n']} of them that have one: {score['auc']:.4f}; `realbogus` on "
        f"these: {score['ours']:.4f}.\n"
        f"- `3class`: balanced accuracy {three} on {hosts['n']} alerts; `4class`: {four} on {all4['n']}."
    )


def probabilities(rows: list[dict[str, Any]]) -> str:
    """Calibration, sets and a threshold of every model as Markdown."""
    lines = [
        "| model | n | temperature | error before | error after | 95 % sets: coverage | mean size |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        fit, sets = row["calibration"], row["conformal"]["levels"]["0.95"]
        errors = [
            f"{part['ece']:.3f} ({part['ece_interval'][0]:.3f}–{part['ece_interval'][1]:.3f})"
            for part in (fit["before"], fit["after"])
        ]
        coverage = _interval(sets["coverage"], *sets["coverage_interval"], percent=True)
        cells = [f"`{row['name']}`", str(fit["n"]), f"{fit['temperature']:.2f}", *errors, coverage]
        cells.append(f"{sets['mean_size']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| model | class | false positive rate | threshold | recall |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        for found in row["thresholds"]:
            low, high = found["threshold_interval"]
            recall = _interval(found["recall"], *found["recall_interval"], percent=True)
            lines.append(
                f"| `{row['name']}` | {found['class']} | {found['false_positive_rate']:.0%} "
                f"| {found['threshold']:.3f} ({low:.3f}–{high:.3f}) | {recall} |"
            )
    return "\n".join(lines)
