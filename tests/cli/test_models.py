"""``transientnet models`` and ``doctor`` on one screen, whole records on request."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from transientnet import list_models
from transientnet.cli import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRANSIENTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRANSIENTNET_REGISTRY", raising=False)


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_stands_in_columns() -> None:
    header, *rows = printed("models", "list").splitlines()
    assert header.split() == ["model", "status", "classes", "description"]
    assert [row.split()[0] for row in rows] == [record.id for record in list_models()]
    for title in header.split():
        at = header.index(title)
        assert all(row[at] != " " and (at == 0 or row[at - 2 : at] == "  ") for row in rows)
    whole = json.loads(printed("models", "list", "--json"))
    assert [each["name"] for each in whole] == [record.name for record in list_models()]


@pytest.mark.parametrize("name", ["realbogus", "3class", "4class"])
def test_a_model_is_shown_on_one_screen_and_whole_as_json(name: str) -> None:
    lines = printed("models", "show", name).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    whole = json.loads(printed("models", "show", name, "--json"))
    # Of several versions the newest is the one meant.
    record = max(
        (r for r in list_models() if r.name == name), key=lambda r: tuple(map(int, r.version.split(".")))
    )
    assert whole == json.loads(json.dumps(record.to_dict()))


def test_an_old_version_loads_by_its_name() -> None:
    assert "realbogus@0.1.0" in printed("models", "show", "realbogus@0.1.0")
    assert "ok" in printed("models", "verify", "realbogus@0.1.0")


def test_doctor_checks_every_package_that_an_installation_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    output = printed("doctor")
    for requirement in project["dependencies"]:
        name = re.split(r"[<>=~! \[]", requirement)[0]
        assert re.search(rf"^ok +{re.escape(name)} \d", output, re.MULTILINE), name
    for extra in ("adapt", "parquet", "label"):
        assert re.search(rf"^ok +extra {extra}: (present|absent)", output, re.MULTILINE)


def test_doctor_names_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    known = metadata.version

    def without_rich(name: str) -> str:
        if name == "rich":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", without_rich)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert not told["ok"]
    assert [check["found"] for check in told["checks"] if not check["ok"]] == [
        "rich is missing: install transientnet again"
    ]
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "BROKEN  rich is missing" in result.stdout
