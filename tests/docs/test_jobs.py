"""What runs elsewhere is right as far as it can be seen here: workflows, forms, nox sessions, recipe."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": [p for p in WORKFLOWS if p.name != "release.yml"],
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}


def sessions() -> dict[str, ast.FunctionDef]:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def constants(node: ast.AST) -> list[str]:
    """Words of a session's commands, in order."""
    return [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_for_other_machines_follow_their_schemas(schema: str) -> None:
    pytest.importorskip("check_jsonschema")
    files = list(map(str, SCHEMAS[schema]))
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_run_sessions_of_nox_and_all_of_them() -> None:
    named = set()
    for path in WORKFLOWS:
        for line in re.findall(r"run: nox -s (.+)", path.read_text(encoding="utf-8")):
            named |= set(line.split())
    assert named == set(sessions())


def test_sessions_and_the_local_run_do_the_same() -> None:
    local = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    (tests,) = [
        [constant.value for constant in node.value.elts if isinstance(constant, ast.Constant)]
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and ast.unparse(node.targets[0]) == "OLDEST_TESTS"
    ]
    assert f"-m pytest {' '.join(map(str, tests))}\n" in local
    assert "-c constraints/oldest.txt -e '.[parquet,hdf5,pandas]'" in local
    assert {"constraints/oldest.txt", ".[parquet,hdf5,pandas]"} <= set(constants(sessions()["oldest"]))
    for name, command in (
        ("lint", '/ruff" format --check .'),
        ("types", '/mypy"'),
        ("imports", '/lint-imports"'),
        ("docs", '/mkdocs" build --strict --quiet --site-dir'),
        ("docs", '/pytest" -m site\n'),
        ("packages", "-m build --outdir"),
        ("wheel", 'transientnet" models verify'),
    ):
        assert command in local
        words = re.findall(r"[\w-]{3,}", command)
        assert set(words) <= {w.strip(".") for w in constants(sessions()[name])} | {"transientnet"}, name


def test_the_recipe_asks_for_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    conda = {"astropy": "astropy-base", "huggingface-hub": "huggingface_hub"}
    wanted = set()
    for requirement in [*project["dependencies"], f"python{project['requires-python']}"]:
        name, bound = re.fullmatch(r"([\w-]+)(>=[\d.]+)", requirement).groups()  # type: ignore[union-attr]
        wanted.add(f"{conda.get(name, name)} {bound}")
    recipe = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    recipe = recipe.replace("{{ python_min }}", re.findall(r'set python_min = "(.+)"', recipe)[0])
    run = recipe.split("  run:\n")[1].split("test:\n")[0]
    assert set(re.findall(r"- (.+)", run)) == wanted


def test_the_image_is_built_of_what_is_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (asked,) = re.findall(r'install .*"\.\[(.+)\]"', text)
    assert set(asked.split(",")) <= set(extras)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.M) for name in line.split()]
    assert len(copied) == 5
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
    assert re.findall(r"^USER (.+)", text, re.M) == ["observer"]


def test_links_of_the_contributors_pages_lead_somewhere() -> None:
    for page in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"):
        for link in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert link.startswith("https://") or (ROOT / link).exists(), f"{page}: {link}"
