"""The page that scores stamps in a browser gives the numbers of Python, and asks nobody but its own site."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import DESKTOP, PHONE, chromium, documentation, grave, open_page, stamps

from transientnet import classify

ROOT = Path(__file__).resolve().parents[2]
CUTOUTS = sorted((ROOT / "docs" / "examples" / "cutouts").glob("*.fits"))
READY = "document.getElementById('status').textContent.match(/candidates?\\.$/)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the documentation, of which only this page is built."""
    if not (ROOT / "docs" / "browser" / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("run `npm ci --ignore-scripts` in docs/browser")
    with documentation(tmp_path_factory.mktemp("site"), only="browser/index.md") as address:
        yield address


def drop(page: Any, files: list[Path]) -> list[dict[str, str]]:
    """Give files to the page; its answers as they stand in the elements."""
    page.evaluate("document.getElementById('status').textContent = ''")
    page.set_input_files("#files", files)
    page.wait_for_function(READY, timeout=60_000)
    found: list[dict[str, str]] = page.evaluate(
        "[...document.querySelectorAll('#answers > li')].map(e => ({...e.dataset, text: e.innerText}))"
    )
    return found


def assert_as_python(answers: list[dict[str, str]], files: list[Path], model: str) -> None:
    expected = classify(files, model=model, workers=1)
    assert [answer["id"] for answer in answers] == expected.ids.tolist()
    assert [int(answer["quality"]) for answer in answers] == expected.quality.tolist()
    found = np.array([json.loads(answer["probabilities"]) for answer in answers], float)
    np.testing.assert_allclose(found, expected.probabilities, atol=1e-4)
    for answer, label in zip(answers, expected.labels.tolist(), strict=True):
        assert answer["text"].startswith(label or "cannot be judged")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_gives_the_numbers_of_python(browser: Any, site: str, size: tuple[int, int]) -> None:
    page = open_page(browser, size, site + "browser/")
    page.wait_for_selector("#model option", state="attached")
    assert_as_python(drop(page, CUTOUTS), CUTOUTS, "realbogus")
    assert page.problems == []
    sizes = [float(number) for number in re.findall(r"([0-9.]+) MB", page.inner_text("#size"))]
    loaded = ("ort.mjs", "ort.wasm.bin", "realbogus.onnx")
    transferred = sum(len(page.request.get(f"{site}browser/{name}").body()) for name in loaded)
    assert sum(sizes) == pytest.approx(transferred / 1e6, abs=0.1)
    assert grave(page) == []
    page.select_option("#model", "3class")
    page.wait_for_function("document.querySelectorAll('#answers dt').length % 3 === 0 && " + READY)
    assert_as_python(drop(page, CUTOUTS[:3]), CUTOUTS[:3], "3class")
    assert [r for r in page.requests if not r.startswith((site, "data:", "blob:"))] == []
    page.close()


def test_arrays_and_packets_without_a_network(
    browser: Any, site: str, tmp_path: Path, shared_data: Path
) -> None:
    page = open_page(browser, DESKTOP, site + "browser/")
    page.click("#example")
    page.wait_for_function(READY, timeout=60_000)
    loaded = len(page.requests)
    page.context.set_offline(True)
    images = stamps(4, size=51)
    np.save(tmp_path / "one.npy", images[0])
    np.save(tmp_path / "some.npy", images)
    np.save(tmp_path / "last.npy", np.moveaxis(images, 1, -1).astype(">f8"))
    (tmp_path / "packed.fits.gz").write_bytes(gzip.compress(CUTOUTS[0].read_bytes()))
    folder = shared_data / "packets"
    packets = [next((folder / name).glob("*.avro")) for name in ("ztf", "ztf_edge", "winter", "rubin")]
    files = [*sorted(tmp_path.glob("*.npy")), tmp_path / "packed.fits.gz", *packets]
    assert_as_python(drop(page, files), files, "realbogus")
    assert page.problems == []
    # Neither before nor while it was scored did anything leave the page.
    assert len(page.requests) == loaded
    page.context.set_offline(False)
    page.close()


def test_what_cannot_be_read_says_why_and_stops_nothing(browser: Any, site: str, tmp_path: Path) -> None:
    whole = CUTOUTS[0].read_bytes()
    np.save(tmp_path / "flat.npy", np.zeros((5, 7, 9)))
    (tmp_path / "cut.fits").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("seeing was bad")
    (tmp_path / "broken.avro").write_bytes(b"Obj\x01" + bytes(range(256)))
    files = [*sorted(tmp_path.iterdir()), CUTOUTS[0]]
    page = open_page(browser, PHONE, site + "browser/")
    page.wait_for_selector("#model option", state="attached")
    *refused, good = drop(page, files)
    assert [answer["text"].split("\n")[0] for answer in refused] == [file.name for file in files[:-1]]
    assert all(len(answer["text"].split("\n", 1)[1].strip()) > 10 for answer in refused)
    assert good["id"] == "asteroid"
    assert page.problems == []
    page.close()
