"""``transientnet models``: get, check, share and remove models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..files.strict_json import dump_json
from .columns import fields
from .console import say

if TYPE_CHECKING:
    from ..models.registry.resolve import Found

__all__ = ["app"]

app = typer.Typer(help="The models: get, check, share and remove them.", no_args_is_help=True)

Name = Annotated[
    str,
    typer.Argument(help="name, name@1.2.0, folder#name, file.onnx, hf://org/repo#name or https://…#name."),
]
Offline = Annotated[bool | None, typer.Option("--offline", help="Open no connection.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Whole records as JSON.")]


@app.command("list")
def list_(offline: Offline = None, as_json: Json = False) -> None:
    """List every model that can be named: bundled, cached, and in TRANSIENTNET_REGISTRY."""
    from ..models.registry.resolve import list_models
    from .columns import columns

    records = list_models(offline=offline)
    if as_json:
        typer.echo(dump_json([record.to_dict() for record in records]))
        return
    rows = [[r.id, r.status, ", ".join(r.classes), r.description.partition("\n")[0]] for r in records]
    typer.echo(columns(["model", "status", "classes", "description"], rows))


@app.command()
def show(name: Name, offline: Offline = None, as_json: Json = False) -> None:
    """Show what a model takes, gives and is worth, on one screen; with --json, all that its record holds."""
    from ..models.registry.resolve import find

    record = find(name, offline=offline).record
    typer.echo(dump_json(record.to_dict(), 2) if as_json else record.summary())


@app.command()
def path(
    name: Name,
    offline: Offline = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The model from raw stamps to answers, for other languages.")
    ] = False,
) -> None:
    """Print the path of a model's verified weight file; fetch it, or make its raw model, if need be."""
    from ..models.registry.resolve import resolve

    if raw:
        from ..models.raw import raw_path

        typer.echo(raw_path(name, offline=offline))
    else:
        typer.echo(resolve(name, offline=offline)[0])


@app.command()
def pull(
    names: Annotated[list[str] | None, typer.Argument(help="Names or addresses of models.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every model of every registry in TRANSIENTNET_REGISTRY.")
    ] = False,
    offline: Offline = None,
) -> None:
    """Ask the registries anew and bring models and their test vectors to the cache."""
    from ..errors import UsageError
    from ..models.registry.resolve import list_models, pull
    from ..settings import get_settings

    wanted = [*(names or []), *(get_settings().registries if every else ())]
    if not wanted and not every:
        raise UsageError("name what to pull, or use --all")
    for name in wanted:
        for record, file in pull(name if name in (names or []) else _as_address(name), offline=offline):
            typer.echo(f"{record.id}\t{file}")
    if every and not wanted:
        say(
            f"TRANSIENTNET_REGISTRY is not set; the {len(list_models())} models listed by "
            "`transientnet models list` need no pulling"
        )


def _as_address(registry: str) -> str:
    from ..models.registry.fetch import Location

    return str(Location.parse(registry))


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="By default every model on this machine.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Recompute hashes and run the test vectors here; exit 1 if anything deviates."""
    from ..models.registry.resolve import find, local_models

    found = [find(name, offline=True) for name in names] if names else local_models()
    failed = sum([not _verify(one, device) for one in found])
    if failed:
        raise typer.Exit(1)


def _verify(found: Found, device: str) -> bool:
    """Print one line on one model; False if it is not what its record says."""
    from ..errors import TransientnetError
    from ..models.classifier import Classifier
    from ..models.registry.resolve import verified_files
    from ..models.vectors import run_test_vectors

    record = found.record
    try:
        file, vectors = verified_files(found)
        classifier = Classifier(file, record, device=device)
        if vectors is None:
            typer.echo(fields(record.id, "ok", "sha256 and contract; it has no test vectors"))
            return True
        deviation = run_test_vectors(classifier, vectors)
    except TransientnetError as error:
        typer.echo(fields(record.id, "FAILED", str(error)))
        return False
    tolerance = float(record.test_vectors["tolerance"])
    good = deviation.worst <= tolerance
    typer.echo(
        fields(
            record.id,
            "ok" if good else "FAILED",
            f"{deviation.n} test vectors on {classifier.device}: tensor {deviation.tensor:.1e}, "
            f"probabilities {deviation.probabilities:.1e}, features {deviation.features:.1e}, "
            f"tolerance {tolerance:.0e}",
        )
    )
    return good


@app.command()
def export(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the package.")],
    to: Annotated[str, typer.Option("--to", help="meas_transinet: a package for Rubin's task.")],
    offline: Offline = None,
) -> None:
    """Write a model as another program loads it, once it answers there as it does here."""
    from ..errors import MissingDependencyError, UsageError

    if to != "meas_transinet":
        raise UsageError(f"--to {to}: the only target is meas_transinet")
    try:
        from ..transfer.meas_transinet import export_meas_transinet
    except ImportError as error:
        raise MissingDependencyError.for_extra("adapt", "Exporting to meas_transiNet") from error
    worst = export_meas_transinet(name, output, offline=offline)
    say(f"{output}: p(real) differs from this package's by {worst:.1e} at most")


@app.command()
def remove(names: Annotated[list[str], typer.Argument(help="Names or addresses of fetched models.")]) -> None:
    """Delete fetched models from the cache."""
    from ..models.registry.resolve import remove

    for name in names:
        for file in remove(name):
            typer.echo(file)


@app.command()
def publish(
    model_dir: Annotated[str, typer.Argument(help="Folder that `transientnet adapt` wrote.")],
    to: Annotated[str, typer.Option("--to", help="hf://org/repo, or a folder.")],
    private: Annotated[bool, typer.Option(help="Make a new Hugging Face repository private.")] = False,
    keep_default: Annotated[bool, typer.Option(help="Leave the registry's default versions.")] = False,
) -> None:
    """Add a model to a registry that other machines then use by name."""
    from ..models.registry.publish import publish

    address, records = publish(model_dir, to, private=private, keep_defaults=keep_default)
    for record in records:
        typer.echo(f"{address}#{record.id}")
