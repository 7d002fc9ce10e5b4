"""The pages a user opens: whole, safe and self-contained."""

from __future__ import annotations

import io
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from transientnet import QualityFlag, Triplet, load_model
from transientnet.cli import app
from transientnet.drawing.charts import Dots, Series, chart, dot_chart
from transientnet.drawing.document import Report, table
from transientnet.drawing.gallery import FLAG_WORDS, GalleryWriter
from transientnet.drawing.jpeg import jpeg_head, jpeg_pixels
from transientnet.drawing.nights import figure_text
from transientnet.drawing.stamps import MISSING, PALETTE, STRETCHES, caption, encode_png, levels, strip
from transientnet.errors import LabelError, ReadError, UsageError
from transientnet.evaluation.evaluate import measure


def stamps(n: int, seed: int = 0) -> np.ndarray:
    """Half with a source in science and difference, half noise."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((63, 63)) - 31
    source = np.exp(-(x**2 + y**2) / 2.2)
    flux = np.where(np.arange(n) % 2, rng.uniform(50, 500, n), 0)[:, None, None, None]
    return (rng.normal(size=(n, 3, 63, 63)) + flux * source * np.array([1, 0, 1])[:, None, None]).astype("f4")


class _Page(HTMLParser):
    """Collects what a page asks the network for, and checks that its tags close."""

    def __init__(self, text: str):
        super().__init__()
        self.outside: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headings: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for key in ("src", "href"):
            address = values.get(key) or ""
            if address and not address.startswith(("data:", "#")):
                self.outside.append(address)
        if tag == "img":
            self.images.append(values)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        if tag not in ("img", "meta", "link", "input", "line", "circle", "polyline", "polygon", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_png_is_what_other_programs_read() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = encode_png(image)
    start = data.index(b"IDAT") + 4
    lines = np.frombuffer(zlib.decompress(data[start:-16]), np.uint8).reshape(3, 5)
    assert (lines[:, 1:] == image).all()
    image_module = pytest.importorskip("PIL.Image")

    seen = np.asarray(image_module.open(io.BytesIO(data)).convert("RGB"))
    assert (seen == PALETTE[image]).all()


def test_thumbnails_of_ugly_stamps() -> None:
    assert (levels(np.full((5, 5), np.nan)) == MISSING).all()
    assert np.ptp(levels(np.full((5, 5), 3))) == 0
    for triplet in (Triplet.unreadable("x", "f", "e"), Triplet(np.eye(9), None, np.ones((4, 30)))):
        assert strip(triplet).shape == (63, 193)
    up = np.zeros((63, 63))
    up[60:, ::2] = 1.0  # high row numbers are up in the sky's convention
    assert strip(Triplet(up))[0, 0] > strip(Triplet(up))[-1, 0]


@pytest.mark.parametrize("stretch", STRETCHES)
def test_missing_pixels_have_their_own_colour_and_change_no_grey(stretch: str) -> None:
    stamp = np.random.default_rng(0).normal(100, 5, (31, 31)).astype(np.float32)
    plain = levels(stamp, stretch)
    for hole in (np.nan, np.inf, -3.4e38, -999.0):
        damaged = stamp.copy()
        damaged[:6, :8] = hole
        shown = levels(damaged, stretch)
        assert (shown[:6, :8] == MISSING).all()
        assert (shown[6:] != MISSING).all()
        assert len(np.unique(shown[6:])) > 20  # still a picture of the sky, not black and white
        assert np.abs(shown[6:].astype(int) - plain[6:]).mean() < 6


def test_a_lone_sentinel_is_missing_and_does_not_set_the_stretch() -> None:
    stamp = np.random.default_rng(0).normal(100, 5, (31, 31)).astype(np.float32)
    stamp[3, 4] = -3.4e38
    shown = levels(stamp)
    assert shown[3, 4] == MISSING
    assert (shown == MISSING).sum() == 1
    assert len(np.unique(shown)) > 20


def test_figures_and_captions_say_scale_direction_and_sign(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sky = {"north": 30.0, "east": 120.0, "is_positive": False}
    triplet = Triplet(*stamps(1)[0], id="c", pixel_scale=0.5, meta=sky)
    science, _, difference = triplet.plot().axes
    assert {text.get_text() for text in science.texts} >= {"5″", "N", "E"}
    place = {text.get_text(): text.get_position() for text in science.texts}
    middle = 0.82 * 63, 0.18 * 63
    for name, angle in (("N", 30), ("E", 120)):
        x, y = np.subtract(place[name], middle)
        assert np.degrees(np.arctan2(-x, y)) == pytest.approx(angle)
    assert difference.get_title() == "difference (negative)"
    assert "31.5″ across, negative" in triplet._repr_html_()
    bare = Triplet(*stamps(1)[0], id="c")
    assert not bare.plot().axes[0].texts
    assert caption(bare) == ""


def test_ticks_stand_beside_the_target_and_never_on_it() -> None:
    from transientnet.drawing.stamps import TICK

    picture = strip(Triplet(np.random.default_rng(0).normal(size=(63, 63))))[:, :63]
    rows, columns = np.nonzero(picture == TICK)
    assert len(rows)
    assert (np.hypot(rows - 31, columns - 31) > 5).all()
    assert (rows <= 31).all()  # above, since the first line of the picture is the top
    assert (columns >= 31).all()


def test_report_escapes_what_it_is_told() -> None:
    page = Report("<b>&", "<i>").add_section("<u>", table(["<a>"], [["<td>"]], "<c>")).html()
    assert not {"<b>&", "<i>", "<u>", "<a>"} & set(re.findall(r"<[^>]*>&?", page))
    assert _Page(page).open == []


def test_chart_leaves_unknown_points_out() -> None:
    drawn = chart("t", "x", "y", [Series("s", [0, 0.5, 1], [0, float("nan"), 1])])
    assert "nan" not in drawn
    assert 'role="img"' in drawn


def test_dots_and_intervals_stand_where_their_values_are() -> None:
    rows = [Dots("a", [1.0, 3.0], 2.0), Dots("b", (), 3.0, 1.0, float("nan")), Dots("<c>", [], 2, 1, 3)]
    drawn = dot_chart("t", "gain (%)", rows, zero=True)
    assert "nan" not in drawn
    assert "<c>" not in drawn
    first, second = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn))
    mean = re.search(r'<line x1="([\d.]+)" y1="[\d.]+" x2="\1" [^>]*stroke-width="3"', drawn)
    assert mean is not None
    assert float(mean[1]) == pytest.approx((first + second) / 2, abs=0.2)
    assert drawn.count('stroke-width="2.5"') == 1
    assert 'class="diagonal"' in drawn


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [("auc", 0.97, "0.9700"), ("balanced_accuracy", 0.97, "97.0 %"), ("recall", 0.5, "50.0 %"),
     ("to_look_at", 1234.4, "1,234"), ("false_negative_rate_at_0.01", 0.25, "25.0 %"),
     ("recall", float("nan"), "unknown")],
)  # fmt: skip
def test_a_figure_has_one_unit(key: str, value: float, text: str) -> None:
    shown, interval = figure_text(key, {"value": value, "low": value / 2, "high": value})
    low, _ = figure_text(key, {"value": value / 2, "low": 0, "high": 0})
    assert shown == text
    assert interval == ("" if text == "unknown" else f"{low.removesuffix(' %')} to {text.removesuffix(' %')}")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    np.savez(folder / "stamps.npz", triplets=stamps(60))
    rows = [f"{['bogus', 'real'][i % 2]},g{i // 4}\n" for i in range(60)]
    (folder / "my.csv").write_text("label,group\n" + "".join(rows))
    return folder


def test_evaluation_writes_a_page_that_opens_offline(labelled: Path, tmp_path: Path) -> None:
    measured = measure(
        labelled / "my.csv", ["realbogus", "realbogus"], tmp_path, cutouts=labelled / "stamps.npz", fwhm=2.5
    )
    assert len(measured) == 2
    page = _Page((tmp_path / "report.html").read_text())
    assert page.outside == []
    assert page.open == []
    assert all(image["alt"] for image in page.images)
    assert page.headings[0] == "h1"
    assert page.headings.count("h1") == 1
    figures = json.loads((tmp_path / "metrics.json").read_text())
    first = next(iter(figures["models"].values()))
    assert first["n"] == 60
    assert first["n_groups"] == 15
    histogram = first["curves"]["real"]["histogram"]
    assert {name: sum(counts) for name, counts in histogram["counts"].items()} == first["counts"]
    assert "Scores by class" in (tmp_path / "report.html").read_text()
    assert "In a night of 60 candidates, looking at the first" in (tmp_path / "report.html").read_text()
    assert figures["comparisons"][0]["p"] == 1  # a model against itself


def test_evaluation_finds_the_objects_that_no_row_names(labelled: Path, tmp_path: Path) -> None:
    cutouts = np.repeat(np.load(labelled / "stamps.npz")["triplets"][:20], 3, axis=0)
    found = measure(["bogus", "real", "real"] * 20, ["realbogus"], tmp_path, cutouts=cutouts, fwhm=2.5)
    assert next(iter(found.values()))["n_groups"] <= 20
    assert "likeness of the stamps" in (tmp_path / "report.html").read_text()


def test_evaluation_takes_zeros_and_ones(labelled: Path, tmp_path: Path) -> None:
    table = [label == "real" for label in ["bogus", "real"] * 30]
    cutouts = np.load(labelled / "stamps.npz")["triplets"]
    found = measure(table, ["realbogus"], tmp_path / "numbers", cutouts=cutouts, fwhm=2.5)
    named = measure(labelled / "my.csv", ["realbogus"], tmp_path / "names", cutouts=cutouts, fwhm=2.5)
    one, other = (next(iter(each.values())) for each in (found, named))
    assert one["confusion"] == other["confusion"]


def test_evaluation_names_the_rows_that_could_not_be_scored(labelled: Path, tmp_path: Path) -> None:
    cutouts = np.load(labelled / "stamps.npz")["triplets"]
    cutouts[4] = 0.0
    np.save(tmp_path / "stamps.npy", cutouts)
    told = CliRunner().invoke(
        app,
        ["evaluate", "--labels", str(labelled / "my.csv"), "--cutouts", str(tmp_path / "stamps.npy"),
         "-o", str(tmp_path / "report")],
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "1 of 60 left out: row 5 (4): blank, off chip" in told.stderr
    figures = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert next(iter(figures["models"].values()))["left_out"] == ["row 5 (4): blank, off chip"]


def test_evaluation_names_a_class_that_the_model_does_not_know(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="bogus"):
        measure(labelled / "my.csv", ["3class"], tmp_path, cutouts=labelled / "stamps.npz")


def test_gallery_holds_every_candidate_and_no_name_can_break_it(tmp_path: Path) -> None:
    model = load_model("realbogus", threads=1)
    triplets = [Triplet(*s, id=f"c{i}", fwhm=2.5) for i, s in enumerate(stamps(6))]
    triplets[2] = Triplet(*stamps(1)[0], id="</script><script>alert(1)", fwhm=2.5)
    triplets[4] = Triplet.unreadable("broken", "night.avro", "cut short")
    path = tmp_path / "night.html"
    with GalleryWriter(path, model.classes) as gallery:
        scored = model.predict(triplets)
        gallery.add(triplets[:3], scored.probabilities[:3], scored.quality[:3])
        assert not path.exists()
        gallery.add(triplets[3:], scored.probabilities[3:], scored.quality[3:])
    text = path.read_text()
    assert text.count("<script") == text.count("</script>") == 3
    (part,) = re.findall(r'<script type="application/json" class="part">(.*?)</script>', text)
    rows = json.loads(part)["rows"]
    assert [row[0] for row in rows] == [t.id for t in triplets]
    assert rows[4][2] == [None, None]
    assert rows[4][3] & 1
    assert _Page(text).outside == []


def test_every_flag_has_words_in_the_gallery() -> None:
    assert set(FLAG_WORDS) == {flag for flag in QualityFlag if flag.value.bit_count() == 1}
    assert len(set(FLAG_WORDS.values())) == len(FLAG_WORDS)


@pytest.mark.parametrize("coarseness", [1.0, 3.0])
def test_grey_jpegs_are_what_other_programs_read(coarseness: float) -> None:
    image_module = pytest.importorskip("PIL.Image")
    y, x = np.mgrid[:64, :192]
    rng = np.random.default_rng(0)
    for picture in (
        np.full((64, 192), 128),
        x + 30 * np.sin(y / 9),
        255 * (np.hypot(y - 31, x - 90) < 12),
        rng.normal(100, 40, (64, 192)),
        255 * ((x + y) % 2),
    ):
        grey = np.clip(picture, 0, 255).astype(np.uint8)
        data = jpeg_head(64, 192, coarseness) + jpeg_pixels(grey, coarseness)
        seen = np.asarray(image_module.open(io.BytesIO(data))).astype(int)
        assert seen.shape == grey.shape
        # No pixel of a smooth picture is far off, and noise keeps its mean and most of its spread.
        assert abs(seen.mean() - grey.mean()) < 6
        assert np.abs(seen - grey).mean() < 10 * coarseness + 8
        assert len(jpeg_head(64, 192, coarseness)) % 3 == 0


def test_gallery_of_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), GalleryWriter(tmp_path / "a.html", ("a", "b")):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="html"):
        GalleryWriter(tmp_path / "a.png", ("a", "b"))


def test_explanation_points_at_the_source(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = load_model("realbogus", threads=1)
    explanation = model.explain(Triplet(*stamps(2)[1], id="c", fwhm=2.5), "real")
    assert explanation.importance.shape == (63, 63)
    y, x = np.unravel_index(np.abs(explanation.importance).argmax(), (63, 63))
    assert abs(y - 31) <= 9
    assert abs(x - 31) <= 9
    explanation.plot(tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ReadError, match="blank"):
        model.explain(Triplet(*np.zeros((3, 63, 63))))


def test_objects_show_themselves_in_notebooks(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    triplet = Triplet(stamps(1)[0, 0], None, np.full((63, 63), np.nan), id="<x>", fwhm=2.5)
    assert "&lt;x&gt;" in triplet._repr_html_()
    triplet.plot(tmp_path / "t.png")
    predictions = load_model("realbogus", threads=1).predict(stamps(4))
    assert "p_real" in predictions._repr_html_()
    predictions.plot(tmp_path / "p.png")
    assert {path.name for path in tmp_path.iterdir()} == {"t.png", "p.png"}
