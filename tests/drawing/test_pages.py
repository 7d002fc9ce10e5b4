"""Pages that people open, in a real browser: contact sheet, report and documentation."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import DESKTOP, PHONE, ROOT, chromium, documentation, grave, open_page, stamps, watched

from transientnet import Predictions, QualityFlag, Triplet
from transientnet.drawing.gallery import GalleryWriter
from transientnet.evaluation.evaluate import measure
from transientnet.labels.table import read_labels

SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
N = 3000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of several thousand candidates; the number in a name is its place by probability."""
    path = tmp_path_factory.mktemp("sheet") / "night.html"
    images = stamps(30, size=63)
    p = np.linspace(1, 0, N, dtype=np.float32)
    triplets = [Triplet(*images[k % 30], id=f"c{k}") for k in range(N)]
    predictions = Predictions(
        np.array([t.id for t in triplets]),
        ("bogus", "real"),
        np.stack([1 - p, p], axis=1),
        np.where(np.arange(N) % 7, 0, QualityFlag.MISSING_REFERENCE).astype(np.uint16),
        "realbogus@0.1.0",
        np.full(N, "night.avro"),
        {},
    )
    with GalleryWriter(path, predictions.classes) as gallery:
        gallery.add(triplets, predictions.probabilities, predictions.quality)
    return path


@pytest.mark.site
@SIZES
def test_the_contact_sheet_scrolls_and_obeys_the_keyboard(
    browser: Any, sheet: Path, size: tuple[int, int]
) -> None:
    page = open_page(browser, size, sheet.as_uri())
    assert page.problems == []
    assert page.text_content("#count").startswith(f"{N} of {N}")
    assert grave(page) == []
    frames = page.evaluate("""async () => {
      const took = []; let last = performance.now();
      for (let k = 0; k < 40; k++) {
        scrollTo(0, (k * 7919) % document.body.scrollHeight);
        await new Promise(requestAnimationFrame);
        took.push(performance.now() - last); last = performance.now();
      }
      return took;
    }""")
    assert max(frames) < 1000
    assert page.locator("figure").count() < 150
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function("() => document.querySelector('figure b')?.textContent === 'c0'")
    page.focus("figure:first-child")
    at = "document.activeElement.querySelector('b')?.textContent"
    for key, name in (("ArrowRight", "c1"), ("End", f"c{N - 1}"), ("ArrowLeft", f"c{N - 2}"), ("Home", "c0")):
        page.keyboard.press(key)
        assert page.evaluate(at) == name
    page.select_option("#flag", label="no reference")
    assert page.text_content("#count").startswith(f"{-(-N // 7)} of {N}")
    page.fill("#find", "c21")
    page.wait_for_function("() => document.querySelector('figure b').textContent === 'c21'")
    assert page.problems == []
    assert [r for r in page.requests if not r.startswith(("file:", "data:"))] == []
    page.close()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of candidates in files, with the fewest bogus neither first nor last in the night."""
    folder = tmp_path_factory.mktemp("night")
    images = stamps(6, size=63)
    np.savez(folder / "night.npz", triplets=images, id=[f"c{k}" for k in range(6)])
    where = {
        "source": str(folder / "night.npz"),
        "ra": 150.1234567,
        "dec": -0.5,
        "magnitude": 19.25,
        "band": "r",
    }
    sky = {"north": 0.0, "east": 90.0, "is_positive": False, "pixel_scale_from": "user"}
    triplets = [Triplet(*images[k], id=f"c{k}", pixel_scale=1.0, meta=where | sky) for k in range(6)]
    triplets[5] = Triplet.unreadable("c5", "night.avro", "cut short")
    p = np.array([[0.2, 0.8], [0.1, 0.9], [0.99, 0.01], [0.01, 0.99], [0.5, 0.5], [np.nan, np.nan]])
    with GalleryWriter(folder / "night.html", ("real", "bogus")) as gallery:
        gallery.add(triplets, p.astype(np.float32), np.array([0, 0, 1 << 8, 0, 0, 1], np.uint16))
    return folder / "night.html"


NAME = "() => document.querySelector('#view h2').textContent"


@SIZES
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gallery_is_looked_through_marked_and_saved(
    browser: Any, night: Path, size: tuple[int, int], scheme: str, tmp_path: Path
) -> None:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, has_touch=size == PHONE
    )
    page = context.new_page()
    page.goto(night.as_uri())
    assert [b.inner_text() for b in page.locator("figure b").all()][:5] == ["c2", "c4", "c0", "c1", "c3"]
    assert page.is_disabled("#export")
    page.focus("figure:first-child")
    page.keyboard.press("Enter")
    shown = page.inner_text("#view")
    for fact in ("150.12346 -0.50000", "10:00:29.63 −00:30:00.0 (ICRS)", "19.25 (r)", "some pixels missing",
                 "fainter than the reference"):  # fmt: skip
        assert fact in shown
    page.wait_for_function("() => document.querySelector('#stamps canvas').width > 300")
    greys = page.evaluate("""() => { const c = document.querySelector('#stamps canvas');
        return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size }""")
    assert greys > 20
    assert grave(page) == []
    page.keyboard.press("1")
    page.fill("#note", 'sure, "really"')
    page.focus("#shut")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(NAME) == "c4"
    page.keyboard.press("2")
    if size == PHONE:
        page.evaluate("""() => { for (const [type, x] of [['touchstart', 300], ['touchend', 100]]) {
            const finger = [new Touch({identifier: 1, target: document.body, clientX: x})];
            document.querySelector('#stamps').dispatchEvent(new TouchEvent(type,
              {bubbles: true, touches: type === 'touchstart' ? finger : [], changedTouches: finger})) } }""")
        assert page.evaluate(NAME) == "c0"
    page.keyboard.press("Escape")
    page.reload()
    page.select_option("#marked", "*")
    assert page.inner_text("#count").startswith("2 of 6")
    assert page.inner_text("#yield") == "Of the best 2, 2 marked: 1 not bogus (50 %, 9–91)."
    assert grave(page) == []
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "elsewhere.csv")
    table = read_labels(tmp_path / "elsewhere.csv")
    assert [t.id for t in table.triplets] == ["c2", "c4"]
    assert list(table.labels) == ["real", "bogus"]
    assert [t.pixel_scale for t in table.triplets] == [1.0, 1.0]
    assert (table.triplets[0].science == np.load(night.parent / "night.npz")["triplets"][2, 0]).all()
    context.close()


def test_ten_thousand_candidates_fit_a_page(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(40, 3, 63, 63)).astype(np.float32)
    with GalleryWriter(tmp_path / "night.html", ("bogus", "real")) as gallery:
        gallery.add([Triplet(*i) for i in images], np.full((40, 2), 0.5, np.float32), np.zeros(40, np.uint16))
    page = (tmp_path / "night.html").stat().st_size
    with GalleryWriter(tmp_path / "empty.html", ("bogus", "real")):
        pass
    # Of stamps that are all noise, which no coding shortens.
    assert 10_000 * (page - (tmp_path / "empty.html").stat().st_size) / 40 < 40e6


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    triplets = stamps(40)
    # Nothing to see in some of those that are called real.
    triplets[1::4] = np.random.default_rng(5).normal(100, 5, triplets[1::4].shape)
    np.savez(folder / "s.npz", triplets=triplets)
    rows = "".join(f"{['bogus', 'real'][k % 2]}\n" for k in range(40))
    (folder / "my.csv").write_text("label\n" + rows)
    measure(folder / "my.csv", ["realbogus", "realbogus"], folder, cutouts=folder / "s.npz", fwhm=4.7)
    return folder / "report.html"


@SIZES
def test_the_report_is_for_everybody(browser: Any, report: Path, size: tuple[int, int]) -> None:
    page = open_page(browser, size, report.as_uri())
    assert grave(page) == []
    smallest = page.evaluate("""Math.min(...[...document.querySelectorAll('.chart text')].map(
      e => parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a))""")
    assert smallest >= 11
    for kind in ("False positives", "False negatives"):
        assert kind in page.inner_text("main")
    assert [r for r in page.requests if not r.startswith(("file:", "data:"))] == []
    page.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the whole documentation."""
    with documentation(tmp_path_factory.mktemp("site")) as address:
        yield address


@pytest.fixture(scope="module")
def visitors(browser: Any) -> Iterator[dict[str, Any]]:
    """One on a phone who prefers light pages, one at a desk who prefers dark ones."""
    found = {}
    for scheme, (width, height) in (("light", PHONE), ("dark", DESKTOP)):
        # Each with a context of its own: the theme remembers the first scheme that it met.
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        found[scheme] = watched(context.new_page())
    yield found
    for page in found.values():
        page.context.close()


PLACES = [
    f"{source.relative_to(ROOT / 'docs').with_suffix('')}/".removesuffix("index/")
    for source in sorted((ROOT / "docs").rglob("*"))
    if source.suffix in (".md", ".ipynb") and "node_modules" not in source.parts
]

COLOURS = {"light": "default", "dark": "slate"}


def is_for_everybody(visitors: dict[str, Any], site: str, place: str) -> None:
    cut = "e.scrollWidth > e.clientWidth && e.tabIndex < 0"
    for scheme, page in visitors.items():
        page.requests.clear()
        page.goto(site + place)
        page.wait_for_timeout(200)
        assert page.evaluate("document.body.dataset.mdColorScheme") == COLOURS[scheme]
        assert grave(page) == [], scheme
        assert page.evaluate(f"[...document.querySelectorAll('pre > code')].filter(e => {cut}).length") == 0
        assert [r for r in page.requests if not r.startswith((site, "data:", "blob:"))] == []


def test_the_first_page_of_the_documentation_is_for_everybody(
    visitors: dict[str, Any], tmp_path: Path
) -> None:
    with documentation(tmp_path, only="index.md") as address:
        is_for_everybody(visitors, address, "")


@pytest.mark.site
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place or "home")
def test_the_documentation_is_for_everybody(visitors: dict[str, Any], site: str, place: str) -> None:
    is_for_everybody(visitors, site, place)


@pytest.mark.site
def test_the_documentation_is_searched_and_shows_what_the_notebook_makes(site: str, browser: Any) -> None:
    page = open_page(browser, DESKTOP, f"{site}tutorials/notebook/")
    assert page.locator(".jp-OutputArea-output img").count() >= 3
    assert page.locator(".jp-OutputArea-output table").count() >= 2
    assert "Traceback" not in page.inner_text("main")
    page.close()
    with urllib.request.urlopen(f"{site}search/search_index.json") as answer:
        pages = json.load(answer)["docs"]
    assert any(re.search(r"\bGPU\b", entry["title"]) for entry in pages)


def test_each_candidate_of_a_gallery_has_its_own_picture(browser: Any, tmp_path: Path) -> None:
    """Pictures lie in the file in the order of rank, over more than one part."""
    n = 130
    rng = np.random.default_rng(0)
    p = rng.permutation(n) / n
    with GalleryWriter(tmp_path / "g.html", ("bogus", "real")) as gallery:
        for k in range(n):
            stamp = rng.normal(size=(63, 63)).astype(np.float32)
            # A block whose column tells the number.
            stamp[40:56, k % 8 * 8 : k % 8 * 8 + 7] = 1000.0
            row = np.array([[1 - p[k], p[k]]], np.float32)
            gallery.add([Triplet(stamp, stamp, stamp, id=f"c{k}")], row, np.zeros(1, np.uint16))
    page = open_page(browser, DESKTOP, f"file://{tmp_path / 'g.html'}")
    columns = page.evaluate(
        """async () => {
            const found = [];
            for (const r of R) {
                const pen = (await tile(r)).getContext("2d");
                const light = [...Array(8).keys()].map((k) => pen.getImageData(8 * k + 3, 12, 1, 1).data[0]);
                found.push(light.indexOf(Math.max(...light)));
            }
            return found;
        }"""
    )
    assert columns == [k % 8 for k in range(n)]
    assert page.problems == []
    page.close()
