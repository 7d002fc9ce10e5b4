"""Start the labelling page and keep it running until it is interrupted."""

from __future__ import annotations

import io
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError, UsageError
from ..models.classifier import Classifier, load_model
from .candidates import Candidates
from .journal import Journal
from .session import Session, class_keys
from .training import Training

__all__ = ["serve"]

USUAL_PORT = 8765


def serve(
    sources: Sequence[str],
    table: Path,
    *,
    model: str = "realbogus",
    classes: Sequence[str] | None = None,
    random_share: float = 0.2,
    port: int | None = None,
    train_options: Sequence[str] = (),
    keys: Mapping[str, str] | None = None,
    links: Sequence[tuple[str, str]] = (),
    goal: int = 200,
    share: bool = False,
    options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Serve the labelling page, on the loopback interface if not asked otherwise; returns when interrupted.

    Parameters
    ----------
    sources : sequence of str
        Files, globs or folders with candidates.
    table : Path
        Label table to write (``.csv``); a journal is kept beside it, and continued if it is there.
    model : str
        Orders the candidates, and gives its opinion when asked; base of a training from the page.
    classes : sequence of str, optional
        The model's classes if not given.
    random_share : float
        Part of the queue that is drawn at random.
    port : int, optional
        8765, or another that is free, if not given.
    train_options : sequence of str
        Options of ``transientnet adapt`` for a training from the page.
    keys : mapping, optional
        Class to the letter that labels it.
    links : sequence of (str, str)
        Names and addresses of pages about a candidate, with ``{ra}``, ``{dec}``, ``{id}``.
    goal : int
        Labels to reach.
    share : bool
        Listen on the local network too, not on the loopback interface alone.
    options : mapping, optional
        ``layout``, ``pixel_scale``, ``fwhm`` for `open_triplets`.
    say, progress : callable
        Get the lines to show, and the number of candidates read.

    Raises
    ------
    UsageError
        A class, a key, a link, the share or the port makes no sense, or the port is taken.
    LabelError
        The table was made otherwise, or another page is writing it.
    EmptyInputError
        None of the candidates could be read.
    MissingDependencyError
        Without the ``label`` extra.
    """
    try:
        import uvicorn

        from ..scoring.web import LOOPBACK, listen
        from .app import Options, make_app
    except ImportError as error:
        raise MissingDependencyError.for_extra("label", "The labelling page") from error

    if table.suffix.lower() != ".csv":
        raise UsageError(f"{table}: the label table must be a .csv file")
    if not 0 <= random_share <= 1:
        raise UsageError(f"the random share is {random_share}: it must be between 0 and 1")
    classifier = load_model(model)
    names = _class_names(classes, classifier)
    class_keys(names, keys)
    _check_links(links)
    with ExitStack() as open_things:
        listener = open_things.enter_context(
            listen("0.0.0.0" if share else "127.0.0.1", *((USUAL_PORT, 0) if port is None else (port,)))
        )
        journal = open_things.enter_context(closing(Journal(table)))
        candidates = open_things.enter_context(
            closing(Candidates(sources, table.parent, options or {}, progress))
        )
        session = Session(candidates, journal, names, random_share)
        training = Training(table, model, table.with_name(f"{table.stem}-model"), train_options)
        token = secrets.token_urlsafe(24)
        hosts = _addresses() if share else ["127.0.0.1"]
        look = Options(table.name, keys or {}, links, goal, LOOPBACK | set(hosts))
        app = make_app(session, training, token, look, classifier)
        for line in [*candidates.unreadable, *_warnings(candidates)]:
            say(line)
        say(_welcome(listener.getsockname()[1], token, len(candidates), table, hosts[0]))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2)
        )
        # Ctrl-C is the usual way to end it: everything is saved.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    say(f"{len([label for label in journal.labels().values() if label])} labels in {table}")


def _class_names(classes: Sequence[str] | None, classifier: Classifier) -> list[str]:
    names = [name.strip() for name in (classifier.classes if classes is None else classes)]
    if len(names) < 2 or len(names) > 9 or not all(names) or len({n.lower() for n in names}) < len(names):
        raise UsageError(f"classes must be 2 to 9 different names, not {', '.join(names) or 'none'}")
    return names


def _check_links(links: Sequence[tuple[str, str]]) -> None:
    for name, address in links:
        if not name or not address.startswith(("https://", "http://")):
            raise UsageError(f"--link {name}={address}: a link is NAME=https://…{{ra}}…{{dec}}…")


def _addresses() -> list[str]:
    """Address on the local network, and names, of this machine; lower case."""
    name = socket.gethostname().lower()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: it asks the system which interface would be used (an address for documentation).
            probe.connect(("192.0.2.1", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    return [address, name, f"{name}.local"]


def _warnings(candidates: Candidates) -> list[str]:
    twice = candidates.ambiguous()
    if not twice:
        return []
    return [f"{len(twice)} ids occur more than once in one file (first: {twice[0]}): labels cannot name them"]


def _welcome(port: int, token: str, count: int, table: Path, host: str) -> str:
    address = f"http://{host}:{port}/{token}/"
    lines = [f"{count} candidates; answers go to {table}", f"Open {address}"]
    if host == "127.0.0.1":
        tunnel = f"ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}"
        lines.append(f"From another machine: {tunnel}, then the same address")
    else:
        lines += [
            "Shared: whoever on this network has the address can label, and read along: it is not encrypted",
            _qr_code(address),
        ]
    return "\n".join([*lines, "Ctrl-C ends it; every answer is saved at once"])


def _qr_code(address: str) -> str:
    """The address for a phone's camera, in characters."""
    try:
        import segno
    except ImportError:
        return "For a QR code of the address: pip install 'transientnet[label]'"
    text = io.StringIO()
    segno.make(address, micro=False).terminal(text, compact=True)
    return text.getvalue().rstrip("\n")
