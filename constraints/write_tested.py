"""Write ``constraints/tested.txt``: the versions of the environment in which the tests are developed.

    pip install -e '.[test]' && pytest && python constraints/write_tested.py
    pip install -c constraints/tested.txt 'transientnet[all]'

``oldest.txt`` has the lower bounds of pyproject.toml; between the two lies what is promised to work.
"""

from __future__ import annotations

import platform
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).resolve().parent


def resolved() -> dict[str, str]:
    """Name and version of all that the package and its extra ``all`` need and that is installed."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    waiting = [
        *project["dependencies"],
        *(line for name in extras if name != "test" for line in extras[name]),
    ]
    found: dict[str, str] = {}
    while waiting:
        wanted = Requirement(waiting.pop())
        name = canonicalize_name(wanted.name)
        active = wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in (wanted.extras or {""})
        )
        if not active or name in found or name == "transientnet":
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = package.version.partition("+")[0]
        waiting += package.requires or []
    return found


def main() -> None:
    """Write the file."""
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    lines = [f"# Versions in which the tests are developed, {system}; made by write_tested.py."]
    lines += [f"{name}=={version}" for name, version in sorted(resolved().items())]
    (FOLDER / "tested.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
