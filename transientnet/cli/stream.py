"""``transientnet stream``: score alerts as a broker sends them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

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
) -> None:
    """Score alert packets from Kafka, at least once: offsets are committed after the scores are written."""
    from ..errors import UsageError
    from ..models.classifier import load_model
    from ..results.writers import writer_for
    from ..scoring.batches import Reading
    from ..scoring.kafka import consume, producer_of

    if output is not None and output.suffix.lower() not in (".csv", ".jsonl"):
        raise UsageError(f"{output}: a stream is appended to a .csv or a .jsonl")
    if output is not None and produce is not None:
        raise UsageError("give --output or --produce, not both")
    settings: dict[str, Any] = {"bootstrap.servers": servers, "group.id": group}
    for pair in kafka or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--kafka wants KEY=VALUE, not {pair!r}")
        settings[key] = value
    classifier = load_model(model, offline=offline or None)
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(1))
    try:
        if produce is not None:
            write = producer_of({"bootstrap.servers": servers}, produce)
        else:
            target = sys.stdout.buffer if output is None else open(output, "ab")  # noqa: SIM115
            writer = writer_for(output or Path("stdout.csv"))
            new = output is None or output.stat().st_size == 0

            def write(predictions: Any) -> None:
                nonlocal new
                target.write((writer.header(predictions) if new else b"") + writer.rows(predictions))
                target.flush()
                new = False
                if output is not None:
                    os.fsync(target.fileno())

        done = consume(
            settings,
            topics,
            classifier,
            write,
            reading=Reading(layout),
            stop=lambda: bool(asked),
            most=most,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    typer.echo(f"{done} messages scored", err=True)
    if asked:
        raise typer.Exit(130)
