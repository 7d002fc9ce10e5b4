"""A real browser for the tests, and what an accessibility checker says of a page in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DESKTOP, PHONE = (1280, 900), (390, 844)
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("background-networking", "component-update", "sync", "gpu", "quic")
# No sandbox: tests may run as root in a container. Only pages of this project are opened.
ARGUMENTS = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in QUIET)]


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium, else the one that playwright installed; skips where there is neither."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        program = next(filter(None, map(shutil.which, PROGRAMS)), playwright.chromium.executable_path)
        if not Path(program).is_file():
            pytest.skip("no Chromium on this machine: install it, or run 'playwright install chromium'")
        found = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield found
        found.close()


def open_page(browser: Any, size: tuple[int, int], address: str | None = None) -> Any:
    """A page that keeps what went wrong in it (`problems`) and what it asked for (`requests`)."""
    page = watched(browser.new_page(viewport={"width": size[0], "height": size[1]}))
    if address is not None:
        page.goto(address)
    return page


def watched(page: Any) -> Any:
    """A page, which from now on keeps its `problems` and `requests`."""
    page.problems, page.requests = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    return page


def grave(page: Any) -> list[str]:
    """What axe-core calls serious or critical, and a page wider than its window."""
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core is not installed: pip install axe-playwright-python")
    page.evaluate((Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
    # Without what nobody reads: elements without fault, paths to elements, style sheets fetched once more.
    options = "{resultTypes: ['violations'], selectors: false, preload: false}"
    violations = page.evaluate(f"axe.run({options}).then(found => found.violations)")
    problems = [
        f"{v['id']}: {v['nodes'][0]['html'][:200]}"
        for v in violations
        if v["impact"] in ("serious", "critical")
    ]
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        problems.append("the page is wider than its window")
    return problems


def stamps(n: int, seed: int = 0, size: int = 31) -> np.ndarray:
    """Noise with a source of any brightness, zero included, in science and difference: (n, 3, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - size // 2
    images = rng.normal(100, 5, (n, 3, size, size))
    brightness = rng.uniform(0, 300, n)[:, None, None] * np.exp(-(x**2 + y**2) / 8)
    images[:, 0] += brightness
    images[:, 2] += brightness
    return images.astype(np.float32)


def save(folder: Path, n: int = 30) -> None:
    """``s.npz`` with `n` candidates c0, c1, …"""
    tiled = np.resize(stamps(min(n, 30)), (n, 3, 31, 31))
    np.savez(folder / "s.npz", triplets=tiled, id=np.array([f"c{k}" for k in range(n)]))


def environment() -> dict[str, str]:
    """For a process that runs this checkout's package."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def label_server(
    folder: Path, *options: str, source: str = "s.npz"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``transientnet label s.npz -o my.csv`` in `folder`: the process and the address that it prints."""
    command = [sys.executable, "-m", "transientnet", "label", source, "-o", "my.csv", "--port", "0"]
    process = subprocess.Popen(
        [*command, *options], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    seen = ""
    try:
        for line in process.stderr:
            seen += line
            if found := re.search(r"Open (http://\S+)", line):
                yield process, found[1]
                break
        else:
            raise AssertionError(seen)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def documentation(folder: Path, only: str | None = None) -> Iterator[str]:
    """Address of the documentation, built in `folder`: all of it, warnings as errors, or one page of it."""
    config, strict = ROOT / "mkdocs.yml", ["--strict"]
    if only is not None:
        config, strict = folder / "mkdocs.yml", []
        config.write_text(
            f"INHERIT: {ROOT / 'mkdocs.yml'}\nstrict: false\nplugins: [search]\nnav: [{only}]\n"
            f"docs_dir: {ROOT / 'docs'}\nhooks: [{ROOT / 'docs' / 'browser' / 'build.py'}]\n"
            "exclude_docs: |\n  *.md\n  *.ipynb\n  *.py\n  *.json\n  node_modules/\n  examples/\n"
            f"  !/{only}\n"
        )
    command = [sys.executable, "-m", "mkdocs", "build", *strict, "--quiet", "--config-file", str(config)]
    done = subprocess.run(
        [*command, "--site-dir", str(folder / "built")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**environment(), "TRANSIENTNET_CACHE": str(folder / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder / "built")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
