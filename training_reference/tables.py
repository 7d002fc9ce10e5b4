"""The tables of results as Markdown: every figure with its number and a 95 % interval."""

from __future__ import annotations

from typing import Any

__all__ = ["by_family", "headline", "probabilities", "table", "when_wrong"]


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
        "",
        "Real or bogus was judged anew, also listed: "
        + "; ".join(f"{count} rows, {reason}" for reason, count in cleaning["rejudged"].items())
        + ".",
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


def _share(part: dict[str, Any] | None) -> str:
    """A share with its interval and number; a dash where there is nothing."""
    if part is None:
        return "–"
    return f"{_interval(part['share'], part['low'], part['high'], percent=True)}, n = {part['n']}"


def _lines(header: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "| " + " | ".join("---" for _ in header) + " |",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def by_family(results: dict[str, Any]) -> str:
    """Recall and rejection by family, telescopes, kinds and the flag, as Markdown."""
    source, kinds = results["families"], results["kinds"]
    lines = ["### ZTF, cross-validated", ""]
    rows = []
    for row in source["rows"]:
        recall = row.get("recall", {})
        found = [_share(recall.get(level)) for level in ("0.5", "5%", "1%")]
        rows.append([row["family"], *found, _share(row.get("rejection"))])
    lines += _lines(
        ["family", "reals at 0.5 or more", "at 5 % false positives", "at 1 %", "inspected bogus below 0.5"],
        rows,
    )
    lines += ["### Other telescopes", ""]
    rows = []
    for row in results["telescopes"]:
        area, own = row.get("auc"), row.get("own")
        rows.append(
            [
                row["telescope"],
                f"{row['n']} ({row['reals']})",
                _interval(**area) if area else "–",
                f"{own['value']:.4f} (n = {own['n']})" if own else "–",
                _share(row["accuracy"]),
                _share(row["recall"]),
                _share(row["rejection"]),
            ]
        )
    lines += _lines(
        ["telescope", "n (real)", "AUC", "its own score", "right at 0.5", "reals found", "bogus rejected"],
        rows,
    )
    lines += ["### Simulated candidates of telescopes at random", ""]
    rows = [[row["family"], _share(row.get("recall", {}).get("0.5")), _share(row.get("rejection"))]
            for row in results["simulated"]]  # fmt: skip
    lines += _lines(["family", "reals at 0.5 or more", "bogus below 0.5"], rows)
    lines += ["### Which kind of bogus", ""]
    for where, part in kinds.items():
        lines += [f"On {where}: {_share(part['accuracy'])} named rightly.", ""]
        matrix = [
            [name, *map(str, counts)] for name, counts in zip(part["names"], part["confusion"], strict=True)
        ]
        lines += _lines(["is, named →", *part["names"]], matrix)
    lines += ["### The flag *out of distribution*", ""]
    rows = [[row["input"], _share(row["flagged"])] for row in results["oddity"]["rows"]]
    lines += _lines(["ZTF alerts", "flagged"], rows)
    rows = [
        [
            row["telescope"],
            _share(row["flagged"]),
            _share(row["wrong if flagged"]),
            _share(row["wrong if not"]),
        ]
        for row in results["telescopes"]
    ]
    lines += _lines(["telescope", "flagged", "of these wrong at 0.5", "of the others wrong"], rows)
    return "\n".join(lines).rstrip()


# Section of the page "When it is wrong": families of the simulated table, and of the source survey's.
_SECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bright": (("signal to noise above 1,000", "saturated"), ("below magnitude 14", "near saturation")),
    "trails": (("trail shorter than two FWHM", "trail of two FWHM or more", "trail", "glints"), ()),
    "faint": (("signal to noise below 7", "noise peak"), ()),
    "residuals": (("dipole", "kernel mismatch", "flux scale", "saturated core"), ()),
    "seeing": (("shape mismatch",), ()),
    "cosmic rays": (("cosmic ray",), ()),
    "reflections": (("ghost", "spike", "crosstalk"), ()),
}


def when_wrong(results: dict[str, Any], version: str) -> dict[str, str]:
    """The figures of each section of the page "When it is wrong" as Markdown."""
    simulated = {row["family"]: row for row in results["simulated"]}
    source = {row["family"]: row for row in results["families"]["rows"]}
    found = {
        "version": f"Figures of `realbogus` {version}, from the run that made it: simulated "
        "candidates that no training saw, and alerts of sky objects that the judging network never saw."
    }
    for section, (made, real) in _SECTIONS.items():
        rows = [
            [where, name, _share(row.get("recall", {}).get("0.5")), _share(row.get("rejection"))]
            for where, names, table_ in (("simulated", made, simulated), ("ZTF", real, source))
            for name in names
            if (row := table_.get(name))
        ]
        found[section] = "\n".join(_lines(["", "family", "reals at 0.5 or more", "bogus below 0.5"], rows))
    rows = [[row["input"], _share(row["flagged"])] for row in results["oddity"]["rows"]]
    found["broken"] = "\n".join(_lines(["ZTF alerts", "flagged"], rows))
    rows = [
        [row["telescope"], _share(row["accuracy"]), _share(row["flagged"])] for row in results["telescopes"]
    ]
    found["elsewhere"] = "\n".join(_lines(["telescope", "right at 0.5", "flagged"], rows))
    return found
