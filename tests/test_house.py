"""The house itself: who imports whom, what is declared, and where things live."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "transientnet"
#: Distribution name of what is imported under another one.
DISTRIBUTIONS = {
    "prometheus_client": "prometheus-client",
    "confluent_kafka": "confluent-kafka",
    "huggingface_hub": "huggingface-hub",
}
#: Declared although the package never names it: torch's exporter imports one, the other imports us.
INDIRECT = {"onnxscript", "pyspark"}


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ;]", requirement)[0].lower() for requirement in requirements}


def imported() -> set[str]:
    """Top-level packages that the package imports, in strings of `import_module` too."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module)
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
                found |= {
                    a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
                }
    return {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - {"transientnet", ""}


def test_every_import_is_declared_and_every_declaration_is_used() -> None:
    extras = project()["optional-dependencies"]
    users = {name for name in extras if name not in ("all", "test", "docs")}
    declared = names(project()["dependencies"]).union(*(names(extras[name]) for name in users))
    used = {DISTRIBUTIONS.get(name, name) for name in imported()}
    assert used - declared == set()
    assert declared - used == INDIRECT


def test_no_module_imports_itself_by_way_of_others() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("transientnet", exclude_type_checking_imports=False)
    # The root hands on the public names and tells its version; it is no step of a way.
    known = graph.modules - {"transientnet"}
    modules = {module: set(graph.find_modules_directly_imported_by(module)) & known for module in known}
    # What imports nothing is taken away until nothing more can be; a circle remains.
    while leaves := {module for module, others in modules.items() if not others}:
        modules = {module: others - leaves for module, others in modules.items() if module not in leaves}
    assert sorted(modules) == []


def test_package_inits_hold_a_docstring_alone() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent in (PACKAGE, PACKAGE / "cli"):
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


def test_oldest_versions_are_the_lower_bounds() -> None:
    extras = project()["optional-dependencies"]
    wanted = {}
    for requirement in [*project()["dependencies"], *extras["parquet"], *extras["hdf5"], *extras["pandas"]]:
        name, version = re.fullmatch(r"([A-Za-z0-9_-]+)>=([0-9.]+)", requirement).groups()  # type: ignore[union-attr]
        wanted[name.lower()] = version
    pinned = {}
    for line in (ROOT / "constraints" / "oldest.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[name.lower()] = version
    for name, version in wanted.items():
        assert (pinned[name] + ".0.0").startswith(version + "."), name
