"""Bring a file from a web server or an archive: resumed, bounded in bytes and time, never downgraded."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

from ...errors import ModelIntegrityError, ModelUnavailableError

__all__ = ["PATIENCE_S", "SLOWEST", "from_url"]

TIMEOUT_S = 20.0
"""Longest silence of a server, seconds."""

PATIENCE_S = 30.0
"""Seconds after which the headers must be there, and the file have come at `SLOWEST` bytes per second."""

SLOWEST = 1000.0
ATTEMPTS = 3
_CHUNK = 2**16


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirects from https to {newurl.split(':')[0]}, which is refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Pace:
    """The clock of one file, over redirects, headers, body and attempts: a drop at a time is too slow."""

    def __init__(self, url: str):
        self.url = url
        self.started = time.monotonic()
        self.received = 0

    def check(self) -> None:
        elapsed = time.monotonic() - self.started
        if elapsed > PATIENCE_S and self.received < SLOWEST * elapsed:
            raise ModelUnavailableError(
                f"{self.url}: only {self.received} bytes of the file in {elapsed:.0f} s; gave up: try later, "
                "or another mirror"
            )


class _Paced(io.RawIOBase):
    """A connection's bytes; each wait for them, headers included, first checks the clock."""

    def __init__(self, raw: io.RawIOBase, pace: _Pace):
        self.raw, self.pace = raw, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.pace.check()
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


def _opener(pace: _Pace) -> urllib.request.OpenerDirector:
    def answer(*args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(*args, **kwargs)
        response.fp = io.BufferedReader(_Paced(response.fp.detach(), pace))
        return response

    class Watched(urllib.request.AbstractHTTPHandler):
        def do_open(self, http_class: Any, req: Any, **kwargs: Any) -> Any:
            def connection(host: str, **options: Any) -> Any:
                made = http_class(host, **options)
                made.response_class = answer
                return made

            return super().do_open(connection, req, **kwargs)

    class Plain(Watched, urllib.request.HTTPHandler): ...

    class Secure(Watched, urllib.request.HTTPSHandler): ...

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        Plain(),
        Secure(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class _CutShort(Exception):
    """The connection ended early; what arrived is kept, and the transfer can resume there."""


def from_url(url: str, part: Path, limit: int) -> None:
    """Bring a file from an ``https://``, ``http://`` or ``doi:`` address to `part`, resuming it."""
    if url.startswith("doi:"):
        url = _doi_url(url)
    reason, pace = "", _Pace(url)
    for _ in range(ATTEMPTS):
        try:
            return _transfer(url, part, limit, pace)
        except _CutShort as cut:
            reason = str(cut)
    raise ModelUnavailableError(
        f"{url}: the connection was cut {ATTEMPTS} times ({reason}); what arrived is kept: "
        "the next try resumes there"
    )


def _transfer(url: str, part: Path, limit: int, pace: _Pace) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(
        url, headers={"Accept-Encoding": "identity", "User-Agent": "transientnet"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = _opener(pace).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            part.unlink()
            raise _CutShort("the part kept from before does not match") from error
        raise ModelUnavailableError(f"{url}: {_status_advice(error.code, error.reason)}") from error
    except ModelUnavailableError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ModelUnavailableError(f"{url}: {_network_advice(error, url)}") from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        if not resumed:
            have = 0
        if response.headers.get_content_type() == "text/html":
            raise ModelIntegrityError(
                f"{url}: the server answered with a web page instead of the file: "
                "check the address, and whether it asks for a login or hides behind a portal"
            )
        # None where the server does not say, or writes what is not a number.
        total = None if response.length is None else have + response.length
        if total is not None and total > limit:
            raise ModelIntegrityError(f"{url}: the server has {total} bytes, more than the {limit} expected")
        with open(part, "ab" if resumed else "wb") as target:
            have += _pour(response, target, url, limit - have, pace)
    if total is not None and have < total:
        raise _CutShort(f"{have} of {total} bytes")


def _pour(response: Any, target: IO[bytes], url: str, limit: int, pace: _Pace) -> int:
    """Copy a body as it arrives, at most `limit` bytes of it."""
    received = 0
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except ModelUnavailableError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise _CutShort(_network_advice(error, url)) from error
        if not chunk:
            return received
        received += len(chunk)
        pace.received += len(chunk)
        if received > limit:
            raise ModelIntegrityError(f"{url}: the server sends more than the {limit} bytes expected")
        target.write(chunk)


def _status_advice(code: int, reason: Any) -> str:
    advice = {
        401: "the server asks for a login, which transientnet does not send",
        403: "the server forbids it",
        404: "no such file on the server: check the address",
        407: "the proxy asks for a login: put it into HTTPS_PROXY",
        410: "no such file on the server any more",
    }.get(
        code,
        "the server fails: try later, or another mirror" if code >= 500 else "the server does not give it",
    )
    return f"HTTP status {code} ({reason}): {advice}"


def _network_advice(error: BaseException, url: str) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    scheme = url.split(":")[0]
    proxy = urllib.request.getproxies().get(scheme)
    via = ""
    if proxy and not urllib.request.proxy_bypass(urllib.parse.urlsplit(url).hostname or ""):
        # A proxy's address may hold a password.
        via = f" through the proxy {proxy.rpartition('@')[2]} (set by {scheme.upper()}_PROXY)"
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT_S:.0f} s{via}: try later, or another mirror"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the certificate cannot be verified ({reason.verify_message}){via}: set SSL_CERT_FILE"
    if isinstance(reason, socket.gaierror):
        return f"the host name cannot be resolved{via}: check the address and the network, or work offline"
    return f"{reason or type(reason).__name__}{via}"


def _doi_url(address: str) -> str:
    """Address of a file in a Zenodo, Figshare or Dataverse record: ``doi:10.5281/zenodo.1/file``."""
    from pooch.downloaders import doi_to_repository

    doi, _, name = address.removeprefix("doi:").rpartition("/")
    try:
        url: str = doi_to_repository(doi).download_url(name)
    except Exception as error:  # pooch passes on whatever requests and the archive raise
        raise ModelUnavailableError(f"{address}: the DOI cannot be resolved ({error})") from error
    return url
