"""``transientnet doctor``: what this installation can do, and whether it works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..files.strict_json import dump_json

if TYPE_CHECKING:
    from ..models.registry.cache import Cache

__all__ = ["doctor"]


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The checks as one JSON object.")] = False,
) -> None:
    """Check the installation and say what to mend; exit 1 if something is broken."""
    checks = []
    for good, line in _checks():
        checks.append({"ok": good, "found": line})
        if not as_json:
            typer.echo(f"{'ok    ' if good else 'BROKEN'}  {line}")
    sound = all(check["ok"] for check in checks)
    if as_json:
        typer.echo(dump_json({"ok": sound, "checks": checks}))
    if not sound:
        raise typer.Exit(1)


def _checks() -> Iterator[tuple[bool, str]]:
    """Each check as (is it well, what was found)."""
    import platform

    from .. import __version__

    yield True, f"transientnet {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield from _packages()
    yield from _cores()
    yield from _places()
    yield from _models()


def _packages() -> Iterator[tuple[bool, str]]:
    required = _requirements()
    installed = {name: _version(name) for name in required.pop("")}
    gpu = _version("onnxruntime-gpu")
    if gpu and installed["onnxruntime"]:
        yield (
            False,
            f"onnxruntime {installed['onnxruntime']} and onnxruntime-gpu {gpu} overwrite each other: "
            "uninstall both, then install one",
        )
    if gpu:
        installed["onnxruntime"] = f"{gpu} (gpu)"
    for name, version in installed.items():
        yield bool(version), f"{name} {version or 'is missing: install transientnet again'}"
    for extra, names in required.items():
        missing = ", ".join(name for name in names if not _version(name))
        yield (
            True,
            f"extra {extra}: "
            + (f"absent ({missing}): pip install 'transientnet[{extra}]'" if missing else "present"),
        )


def _requirements() -> dict[str, list[str]]:
    """Packages that an installation needs, under the empty name, and those of each extra."""
    from importlib import metadata

    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        import tomllib

        declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        lines = {"": declared["dependencies"], **declared["optional-dependencies"]}
    else:
        lines = {"": []}
        for line in metadata.requires("transientnet") or ():
            extra = re.search(r"extra == ['\"]([^'\"]+)", line)
            lines.setdefault(extra[1] if extra else "", []).append(line)
    names = {extra: [re.split(r"[^\w.-]", line)[0] for line in each] for extra, each in lines.items()}
    # Extras that gather others are for those who develop the package.
    return {extra: each for extra, each in names.items() if "transientnet" not in each}


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _cores() -> Iterator[tuple[bool, str]]:
    import os

    from ..settings import cores

    yield True, f"cores: {os.cpu_count()} in the machine, {cores()} granted to this process"


def _places() -> Iterator[tuple[bool, str]]:
    import tempfile

    from ..errors import TransientnetError
    from ..models.registry.cache import Cache
    from ..models.registry.fetch import disk_errors
    from ..settings import get_settings

    settings = get_settings()
    folder = settings.cache_dir
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        yield True, f"cache {folder} is writable"
    except TransientnetError as error:
        yield False, f"cache: {error}"
        return
    if not settings.registries:
        yield True, "registries: the bundled one; TRANSIENTNET_REGISTRY names no other"
    for registry in settings.registries:
        try:
            yield True, _registry_state(Cache(folder), registry, settings.offline)
        except TransientnetError as error:
            yield False, f"registry: {error}"


def _registry_state(cache: Cache, registry: str, offline: bool) -> str:
    """Whether a registry answers, and with which models."""
    from ..models.registry.fetch import Location
    from ..models.registry.manifest import Manifest

    location = Location.parse(registry)
    if location.kind == "folder":
        names = Manifest.read(Path(location.base) / location.manifest).names
        return f"registry {location} holds {', '.join(names)}"
    if not offline:
        return f"registry {location} answers with {', '.join(cache.refresh(str(location)).manifest.names)}"
    known = cache.entry(str(location))
    return f"registry {location}: offline, " + (
        f"cached with {', '.join(known.manifest.names)}" if known else "and not cached"
    )


def _models() -> Iterator[tuple[bool, str]]:
    from ..errors import TransientnetError
    from ..models.classifier import Classifier
    from ..models.registry.manifest import bundled_folder
    from ..models.registry.resolve import local_models, verified_files
    from ..models.vectors import run_test_vectors

    try:
        models = local_models()
    except TransientnetError as error:
        yield False, f"models: {error}"
        return
    for found in models:
        try:
            file, vectors = verified_files(found)
            classifier = Classifier(file, found.record)
            deviation = run_test_vectors(classifier, vectors).worst if vectors else 0.0
        except TransientnetError as error:
            yield False, str(error)
            continue
        good = deviation <= found.record.test_vectors.get("tolerance", 0.0)
        yield good, f"{found.record.id} runs on {classifier.device}, deviates by {deviation:.0e}"
    named = {found.record.file for found in models if found.location is None}
    for stale in sorted({path.name for path in bundled_folder().glob("*.onnx")} - named):
        yield False, f"{bundled_folder() / stale} is in no manifest: a stale file, install transientnet again"
