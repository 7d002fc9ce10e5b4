"""``transientnet stream``: score alerts as a broker sends them."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import Quiet, note

__all__ = ["stream"]


def stream(
    topics: Annotated[list[str], typer.Argument(help="Kafka topics with alert packets.")],
    servers: Annotated[str, typer.Option("--servers", help="host:port of the brokers, by commas.")],
    group: Annotated[str, typer.Option("--group", help="Consumer group that remembers how far it read.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, name@version, or path to an .onnx.")
    ] = "realbogus",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV or JSON lines to append to; stdout if absent.")
    ] = None,
    produce: Annotated[str | None, typer.Option(help="Topic to send the scores to, as JSON.")] = None,
    layout: Annotated[str | None, typer.Option(help="Survey name, or a TOML file with field names.")] = None,
    kafka: Annotated[
        list[str] | None, typer.Option(help="Further setting of the client, KEY=VALUE; may be repeated.")
    ] = None,
    most: Annotated[int | None, typer.Option(min=1, help="End after this many messages.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch no model over the network.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score alert packets from Kafka, at least once: offsets are committed after the scores are written."""
    from ..errors import UsageError
    from ..models.classifier import load_model
    from ..readers.open import Reading
    from ..scoring.interrupts import on_interrupt
    from ..scoring.kafka import appender, consume, producer_of
    from ..scoring.run import CsvStream

    if output is not None and produce is not None:
        raise UsageError("give --output or --produce, not both")
    settings: dict[str, Any] = {"bootstrap.servers": servers, "group.id": group}
    for pair in kafka or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--kafka wants KEY=VALUE, not {pair!r}")
        settings[key] = value
    classifier = load_model(model, offline=offline or None)
    with ExitStack() as stack:
        stop = stack.enter_context(on_interrupt())
        if produce is not None:
            write = producer_of({"bootstrap.servers": servers}, produce)
        elif output is not None:
            write = stack.enter_context(appender(output))
        else:
            table = CsvStream(sys.stdout.buffer)
            table.begin(positions=True)
            write = table.write
        tally = consume(
            settings,
            topics,
            classifier,
            write,
            reading=Reading(layout),
            stop=lambda: stop.asked,
            most=most,
        )
    note(tally.summary())
    if stop.asked:
        raise typer.Exit(130)
