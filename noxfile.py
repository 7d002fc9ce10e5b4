"""One command for each job of continuous integration: ``nox -s NAME``; ``nox -l`` lists them.

`.ci/run` runs the same commands one after another; `tests/docs/test_jobs.py` compares the two.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
nox.options.sessions = ["lint", "types", "imports"]
OLDEST_TESTS = ("tests/readers", "tests/prepare", "tests/results", "tests/models/test_classifier.py")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite with the newest dependencies."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """Readers, normalising and the classifier with the oldest dependencies that pyproject.toml allows."""
    runners = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "fastavro")
    session.install("-c", "constraints/oldest.txt", "-e", ".[parquet,hdf5,pandas]", *runners)
    session.run("python", "-m", "pytest", *OLDEST_TESTS, *session.posargs)


@nox.session
@nox.parametrize(
    "host, packages",
    [
        ("ampel", ["ampel-core>=0.10", "ampel-alerts>=0.10"]),
        ("alerce", ["--no-deps", "apf-base==2.5.2"]),
        ("tom", ["tomtoolkit>=3.1"]),
    ],
    ids=["ampel", "alerce", "tom"],
)
def hosts(session: nox.Session, host: str, packages: list[str]) -> None:
    """Pages about hosts whose packages ask for other versions than the tests do."""
    # apf-base pins the clients of services that its step class does not use.
    needs = ("pytest", "pytest-timeout", "pytest-xdist", "fastavro", "pydantic")
    apf = ("confluent-kafka", "pandas", "boto3", "jinja2", "click", "prometheus-client", "pyroscope-io")
    session.install("-e", ".", *needs, *(apf if host == "alerce" else ()))
    session.install(*packages)
    session.run("python", "-m", "pytest", "-n", "0", "-m", "site", "tests/docs/test_hosts.py", "-k", host)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, docstrings, complexity."""
    session.install("ruff>=0.12")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types."""
    session.install("-e", ".[test]")
    session.run("mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """Rooms look downwards only."""
    session.install("-e", ".", "import-linter>=2.1")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, warnings as errors, and each of its pages in a browser where there is one."""
    session.install("-e", ".[test]")
    if shutil.which("npm"):
        browser = str(ROOT / "docs" / "browser")
        session.run("npm", "clean-install", "--ignore-scripts", "--prefix", browser, external=True)
    session.run("mkdocs", "build", "--strict", "--quiet", "--site-dir", "site")
    session.run("pytest", "-m", "site")


@nox.session
def packages(session: nox.Session) -> None:
    """Source distribution and wheel, into ``dist/``."""
    session.install("build>=1.2")
    session.run("python", "-m", "build", "--outdir", "dist", ".")


@nox.session
def wheel(session: nox.Session) -> None:
    """The newest wheel of ``dist/``, installed, at work in an empty folder."""
    wheels = sorted((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        session.error("dist/ holds no wheel: run nox -s packages first")
    session.install(str(wheels[-1]))
    examples = sorted(map(str, (ROOT / "docs" / "examples" / "cutouts").glob("*.fits")))
    session.chdir(session.create_tmp())
    session.run("transientnet", "score", *examples, "-o", "scores.csv")
    session.run("transientnet", "models", "verify")
