"""What the servers of the package share: where they listen, whom they refuse, and how much they read."""

from __future__ import annotations

import socket
from collections.abc import Callable, Container, Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import Scope

from ..errors import UsageError

__all__ = ["LOOPBACK", "TooLongError", "foreign", "headers_of", "listen", "read_body"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine that no other machine can use."""


class TooLongError(UsageError):
    """The body of a request is longer than the server reads."""


def listen(host: str, *ports: int) -> socket.socket:
    """A listening socket on the first of the ports that is free; 0 is any.

    Parameters
    ----------
    host : str
        Name or address of the interface.
    *ports : int

    Raises
    ------
    UsageError
        None of the ports can be used, or the host is not one of this machine's.
    """
    problem: Exception | None = None
    for port in ports:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except (OSError, OverflowError, UnicodeError) as error:
            problem = error
            continue
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1024)
            return listener
        except (OSError, OverflowError) as error:
            listener.close()
            problem = error
    raise UsageError(f"port {ports[-1]} of {host} cannot be used ({problem}): name another with --port")


def headers_of(scope: Scope) -> dict[str, str]:
    """Headers of a request, names in lower case."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def foreign(headers: Mapping[str, str], hosts: Container[str] | None = LOOPBACK) -> str | None:
    """Why a request is refused that comes from a page of another origin, or for another host name.

    A browser lets any page send requests to this machine, and a page's own host name can be made to lead
    here (DNS rebinding): both show in the headers.

    Parameters
    ----------
    headers : mapping
        From `headers_of`.
    hosts : container of str, optional
        Names by which the server may be called, without a port; None for any.
    """
    host = headers.get("host", "")
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port  # a malformed port raises, too
        origin = urlsplit(headers["origin"]).netloc if "origin" in headers else None
    except ValueError:
        return "the host or the origin is not an address"
    if hosts is not None and name not in hosts:
        return "this server answers only to the name in the address that it printed when it started"
    if origin is not None and origin != host:
        return "requests from other pages are refused"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "requests from other pages are refused"
    return None


async def read_body(request: Request, limit: int, take: Callable[[int], None] = lambda size: None) -> bytes:
    """The body of a request, never more than `limit` bytes of it in memory.

    Parameters
    ----------
    request : Request
    limit : int
    take : callable
        Called with the size of each part before it is kept.

    Raises
    ------
    TooLongError
        It is longer; nothing is read where it says so beforehand.
    """
    announced = request.headers.get("content-length", "")
    # Anything but a number of bytes has been refused before it comes here.
    parts, size = [], int(announced[:20]) if announced.isascii() and announced.isdecimal() else 0
    if size <= limit:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                break
            take(len(chunk))
            parts.append(chunk)
        else:
            return b"".join(parts)
    raise TooLongError(f"the body has more than the {limit:,} bytes that this server reads")
