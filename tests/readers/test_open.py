"""Dispatch by content, grouping of files, layouts: what `open_triplets` promises for any source."""

from __future__ import annotations

import gzip
import itertools
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from transientnet import Triplet, open_triplets
from transientnet.errors import EmptyInputError, ReadError, UsageError
from transientnet.files.paths import stem
from transientnet.readers.grouping import group_files
from transientnet.readers.layouts import Layout, load_layout, match_channels, surveys
from transientnet.readers.vocabulary import channel_of, is_companion

STAMPS = {
    channel: np.random.default_rng(seed).normal(100, 5, (21, 21)).astype(np.float32)
    for seed, channel in enumerate(("science", "reference", "difference"))
}


def write(path: Path, channel: str = "science", **kwargs: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(STAMPS[channel]).writeto(path, **kwargs)
    return path


def write_triplet(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    hdus = [fits.ImageHDU(STAMPS[channel], name=channel) for channel in STAMPS]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def assert_whole(triplet: Triplet) -> None:
    assert triplet.error is None
    for stamp, expected in zip(triplet.stamps, STAMPS.values(), strict=True):
        np.testing.assert_array_equal(stamp, expected)


@pytest.mark.parametrize(
    ("names", "id"),
    [
        (("x_sci.fits", "x_ref.fits", "x_diff.fits"), "x"),
        (("x.new.fits", "x.tmpl.fits", "x.sub.fits"), "x"),
        (("SCI-7.fits", "TEMPL-7.fits", "DIFF-7.fits"), "7"),
        (("Science_a_1.fits.gz", "Template_a_1.fits.gz", "Difference_a_1.fits.gz"), "a_1"),
        (("srch12.fits", "temp12.fits", "diff12.fits"), "12"),
        (("n4_istamp.fits", "n4_rstamp.fits", "n4_dstamp.fits"), "n4"),
        (("new_sci_9.fits", "new_ref_9.fits", "new_diff_9.fits"), "new_9"),
        (("a_sci_2.fits", "a_ref_2.fits", "a_diff_2.fits"), "a_2"),
        (("objSci.fits", "objRef.fits", "objDiff.fits"), "obj"),
        (("sci/k.fits", "ref/k.fits", "diff/k.fits"), "k"),
        (("k9/science.fits", "k9/reference.fits", "k9/difference.fits"), "k9"),
        (("c1/sci/stamp.fits", "c1/ref/stamp.fits", "c1/diff/stamp.fits"), "c1"),
        (("c 2 (sci).fits", "c 2 (ref).fits", "c 2 (diff).fits"), "c 2"),
        (("image_01.fits", "template_01.fits", "difference_01.fits"), "01"),
        (("AT2024abc_img.fits", "AT2024abc_ref.fits", "AT2024abc_sub.fits"), "AT2024abc"),
        (("k8/image.fits", "k8/template.fits", "k8/diff.fits"), "k8"),
        (("r12_UT1-image.fits", "r12_UT1-template.fits", "r12_UT1-difference.fits"), "r12_UT1"),
        (("x_red.fits", "x_ref.fits", "x_D.fits"), "x"),
        (("x_N.fits", "x_R.fits", "x_D.fits"), "x"),
        (("c7_sci.fits", "c7_tpl.fits", "c7_diff.fits"), "c7"),
        (("sky.05.wrp.fits", "sky.05.stk.fits", "sky.05.diff.fits"), "sky.05"),
        (("cand0.obj.fits", "cand0.ref.fits", "cand0.sub.fits"), "cand0"),
        (("new_0042.fits", "old_0042.fits", "sub_0042.fits"), "0042"),
        (("q2_sciimg.fits", "q2_refimg.fits", "q2_scimrefdiffimg.fits"), "q2"),
        (("obj5_sci.fits", "obj5_ref_resampled.fits", "obj5_diff_zogy.fits"), "obj5"),
        (("visit_image_r_3.fits", "template_detector_r_3.fits", "difference_image_r_3.fits"), "r_3"),
        (
            ("calexp_r_3.fits", "goodSeeingDiff_templateExp_r_3.fits", "goodSeeingDiff_diffExp_r_3.fits"),
            "r_3",
        ),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_three_files_are_one_candidate(
    tmp_path: Path, names: tuple[str, ...], id: str, order: tuple[int, ...]
) -> None:
    paths = [write(tmp_path / name, channel) for name, channel in zip(names, STAMPS, strict=True)]
    (triplet,) = open_triplets([paths[i] for i in order])
    assert_whole(triplet)
    assert triplet.id == id


def test_grouping_keeps_the_order_of_the_list(tmp_path: Path) -> None:
    a = write_triplet(tmp_path / "a.fits")
    words = dict(zip(STAMPS, ("sci", "ref", "diff"), strict=True))
    b = [write(tmp_path / f"b_{word}.fits", channel) for channel, word in words.items()]
    c = write_triplet(tmp_path / "c.fits")
    triplets = list(open_triplets([b[1], a, b[0], c, b[2]]))
    assert [t.id for t in triplets] == ["b", "a", "c"]
    for triplet in triplets:
        assert_whole(triplet)


@pytest.mark.parametrize(
    ("names", "beside"),
    [
        (("x_{}.fits",), ("x_sci.weight.fits", "x_ref.weight.fits", "x_weight_map.fits", "x_Scorr.fits")),
        (("x_{}.fits",), ("x_sci_mask.fits", "x_ref_mask.fits", "x_diff_mask.fits", "x_sci_unc.fits")),
        (("{}_01.fits",), ("sci_01_mask.fits", "mask_01.fits", "refunc_01.fits", "bpm.fits")),
        (("k/{}.fits",), ("k/mask.fits", "k/psf.fits", "k/weight.fits")),
        (("{}/01.fits", "{}/02.fits"), ("mask/01.fits", "mask/02.fits", "sci/01.weight.fits")),
        (("x_{}.fits",), ("x_diff_zogy.fits", "x_ref.fits.gz")),
    ],
)
def test_what_lies_beside_the_stamps_is_no_candidate(
    tmp_path: Path, names: tuple[str, ...], beside: tuple[str, ...]
) -> None:
    words = zip(STAMPS, ("sci", "ref", "diff"), strict=True)
    for name, (channel, word) in itertools.product(names, list(words)):
        write(tmp_path / name.format(word), channel)
    for name in beside:
        write(tmp_path / name)
    triplets = list(open_triplets(tmp_path))
    assert len(triplets) == len(names)
    for triplet in triplets:
        assert_whole(triplet)
    # What is named alone is read all the same.
    (triplet,) = open_triplets(tmp_path / beside[0])
    assert triplet.source == str(tmp_path / beside[0])


def test_a_candidate_is_not_left_out_for_its_name(tmp_path: Path) -> None:
    for word, channel in zip(("sci", "ref", "diff"), STAMPS, strict=True):
        write(tmp_path / f"x_{word}.fits", channel)
    for name in ("x_score.fits", "x_sub.fits"):
        write_triplet(tmp_path / name)
    triplets = list(open_triplets(tmp_path))
    assert {t.id for t in triplets} == {"x", "x_score", "x_sub"}
    for triplet in triplets:
        assert_whole(triplet)


def test_objects_that_are_named_like_a_map_are_candidates(tmp_path: Path) -> None:
    for name in ("AT2024var", "AT2024new", "star", "variable_star", "noise"):
        for word, channel in zip(("sci", "ref", "diff"), STAMPS, strict=True):
            write(tmp_path / f"{name}_{word}.fits", channel)
    triplets = list(open_triplets(tmp_path))
    assert {t.id for t in triplets} == {"AT2024var", "AT2024new", "star", "variable_star", "noise"}
    for triplet in triplets:
        assert_whole(triplet)


@pytest.mark.parametrize(
    "names",
    [
        ("AT2024new.fits", "AT2024ref.fits", "AT2024sub.fits"),
        ("c_red.fits.gz", "c_ref.fits", "c_blue.fits"),
        ("sci/a.fits", "ref/a.fits"),
        ("x_N.fits", "x_R.fits", "x_D.fits"),
    ],
)
def test_a_file_with_all_stamps_is_none_of_another_candidate(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_triplet(tmp_path / name)
    np.save(tmp_path / "cube.npy", np.zeros((3, 5, 5)))
    triplets = list(open_triplets([tmp_path / name for name in names]))
    assert [t.id for t in triplets] == [stem(name) for name in names]
    for triplet in triplets:
        assert_whole(triplet)


def test_cubes_tables_and_packed_extensions_are_candidates_of_their_own(tmp_path: Path) -> None:
    stack = np.stack(list(STAMPS.values()))
    fits.PrimaryHDU(stack).writeto(tmp_path / "c_new.fits")
    packed = [fits.CompImageHDU(stamp, name=channel) for channel, stamp in STAMPS.items()]
    fits.HDUList([fits.PrimaryHDU(), *packed]).writeto(tmp_path / "c_ref.fits")
    columns = [
        fits.Column(name, "441E", array=stamp.reshape(1, -1), dim="(21,21)") for name, stamp in STAMPS.items()
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "c_sub.fits")
    triplets = list(open_triplets(tmp_path))
    assert [Path(t.source).name for t in triplets] == ["c_new.fits", "c_ref.fits", "c_sub.fits"]
    assert all(t.error is None and t.difference is not None for t in triplets)


def test_a_stamp_with_its_own_mask_and_variance_stays_a_stamp(tmp_path: Path) -> None:
    for word, (channel, stamp) in zip(("calexp", "tmpl", "diff"), STAMPS.items(), strict=True):
        maps = [fits.ImageHDU(np.zeros((21, 21), "i4"), name="MASK"), fits.ImageHDU(stamp, name="VARIANCE")]
        image = fits.ImageHDU(STAMPS[channel], name="IMAGE")
        fits.HDUList([fits.PrimaryHDU(), image, *maps]).writeto(tmp_path / f"c12_{word}.fits")
    (triplet,) = open_triplets(tmp_path)
    assert_whole(triplet)


def test_several_references_are_not_guessed_among(tmp_path: Path) -> None:
    for name, channel in {
        "x_sci": "science",
        "x_diff": "difference",
        "x_ref_c": "reference",
        "x_ref_e": "reference",
    }.items():
        write(tmp_path / f"{name}.fits", channel)
    triplets = list(open_triplets(tmp_path))
    assert {t.id: t.error is None for t in triplets} == {"x": True, "x_ref_c": False, "x_ref_e": False}


@pytest.mark.parametrize("names", [("calib", "ref", "diff"), ("zogy_new", "zogy_old", "zogy_delta")])
def test_a_layout_names_files_too(tmp_path: Path, names: tuple[str, ...]) -> None:
    layout = Layout(fields={channel: (name,) for channel, name in zip(STAMPS, names, strict=True)})
    for channel, name in zip(STAMPS, names, strict=True):
        write(tmp_path / f"7_{name}.fits", channel)
    (triplet,) = open_triplets(tmp_path, layout=layout)
    assert_whole(triplet)
    assert triplet.id == "7"


def test_a_missing_file_is_a_missing_channel(tmp_path: Path) -> None:
    write(tmp_path / "x_sci.fits", "science")
    write(tmp_path / "x_diff.fits", "difference")
    (triplet,) = open_triplets(tmp_path)
    assert triplet.reference is None
    np.testing.assert_array_equal(triplet.difference, STAMPS["difference"])


def test_a_lone_difference_is_not_scored_as_science(tmp_path: Path) -> None:
    (triplet,) = open_triplets(write(tmp_path / "x_diff.fits", "difference"))
    assert "science stamp" in (triplet.error or "")


def test_one_damaged_file_of_three_is_one_unreadable_candidate(tmp_path: Path) -> None:
    write(tmp_path / "x_sci.fits", "science")
    (tmp_path / "x_ref.fits").write_bytes(b"SIMPLE  =")
    write(tmp_path / "x_diff.fits", "difference")
    (triplet,) = open_triplets(sorted(tmp_path.iterdir()))
    assert triplet.id == "x"
    assert "x_ref.fits" in (triplet.error or "")


@pytest.mark.parametrize(
    "names",
    [
        ("INPUT", "TEMPLATE", "DIFFERENCE"),
        ("WARP", "STACK", "DIFF"),
        ("SCI", "COADD", "DIFF"),
        ("SCI", "TPL", "SUB"),
        ("SCI_CLEAN", "REF_RESAMPLED", "DIFF_ZOGY"),
        ("calexp", "goodSeeingDiff_templateExp", "goodSeeingDiff_differenceExp"),
    ],
)
def test_extensions_of_further_words(tmp_path: Path, names: tuple[str, ...]) -> None:
    hdus = [fits.ImageHDU(stamp, name=name) for name, stamp in zip(names, STAMPS.values(), strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "x.fits")
    (triplet,) = open_triplets(tmp_path / "x.fits")
    assert_whole(triplet)


@pytest.mark.parametrize("part", ["postagestamp", "diffim", "stampsstamp", "cutoutscience", "maskmap"])
def test_names_that_are_long_and_hostile_are_no_burden(part: str) -> None:
    # Seconds, where the words could be split in two ways each time.
    assert match_channels([part * 40 + "q"]) == {}
    assert not is_companion(part * 40 + "q")


@pytest.mark.parametrize(
    "cards",
    [
        {"BITPIX": "'abc'"},
        {"NAXIS": "2000000000"},
        {"NAXIS": "-1"},
        {"NAXIS1": "99999999999999"},
        {"BITPIX": "1.5"},
    ],
)
def test_a_damaged_header_among_three_files_costs_one_candidate(
    tmp_path: Path, cards: dict[str, str]
) -> None:
    told = {"SIMPLE": "T", "BITPIX": "-32", "NAXIS": "2", "NAXIS1": "21", "NAXIS2": "21", **cards}
    header = "".join(f"{key:<8}= {value:>20}".ljust(80) for key, value in told.items()) + "END"
    write(tmp_path / "x_sci.fits")
    (tmp_path / "x_ref.fits").write_bytes(header.ljust(2880).encode() + bytes(2880))
    (triplet,) = open_triplets(tmp_path)
    assert (triplet.id, triplet.error is None) == ("x", False)


def test_no_file_is_in_two_candidates() -> None:
    words = ["sci", "ref", "diff", "image", "mask", "Scorr", "stack", "D", "x", "01", "AT2024", "é", "_", "."]
    random = np.random.default_rng(1)
    for _ in range(300):
        paths = ["q/" + "".join(random.choice(words, random.integers(1, 6))) for _ in range(8)]
        found = list(group_files(paths))
        together = [path for item in found if not isinstance(item, str) for path in item.paths.values()]
        assert len(together) == len(set(together))
        assert {item for item in found if isinstance(item, str)}.isdisjoint(together)


def test_content_decides_not_the_ending(tmp_path: Path) -> None:
    path = write_triplet(tmp_path / "really_fits.avro")
    zipped = tmp_path / "also.dat"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    for triplet in open_triplets([path, zipped]):
        assert_whole(triplet)


def test_bad_files_are_rows_and_the_others_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "empty.fits").touch()
    (tmp_path / "text.fits").write_text("no FITS at all\n")
    good = write_triplet(tmp_path / "good.fits")
    (tmp_path / "cut.fits").write_bytes(good.read_bytes()[:6000])
    names = ["empty.fits", "text.fits", "good.fits", "cut.fits", "absent.fits"]
    triplets = list(open_triplets([tmp_path / name for name in names]))
    assert [t.id for t in triplets] == ["empty", "text", "good", "cut", "absent"]
    assert [t.error is None for t in triplets] == [False, False, True, False, False]
    assert all(t.source == str(tmp_path / name) for t, name in zip(triplets, names, strict=True))
    assert "No such file" in (triplets[4].error or "")
    assert str(tmp_path) not in (triplets[1].error or "")  # the row has its source beside it


def test_folder_is_searched_sorted_and_without_what_is_no_candidate(tmp_path: Path) -> None:
    for name in ("b/z.fits", "b/a.fits", "a/c.fits"):
        write_triplet(tmp_path / name)
    (tmp_path / "README.md").write_text("stamps of the night")
    (tmp_path / "list.csv").write_text("id,label\n")
    (tmp_path / "b" / ".hidden.fits").write_bytes((tmp_path / "b/z.fits").read_bytes())
    assert [t.id for t in open_triplets(tmp_path)] == ["c", "a", "z"]
    assert [t.id for t in open_triplets(str(tmp_path / "b" / "*.fits"))] == ["a", "z"]
    assert [t.id for t in open_triplets(str(tmp_path / "**" / "*.fits"))] == ["c", "a", "z"]


def test_nothing_to_read_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(EmptyInputError, match=str(tmp_path)):
        list(open_triplets(tmp_path))
    with pytest.raises(EmptyInputError, match=r"\*\.fits"):
        list(open_triplets(str(tmp_path / "*.fits")))
    with pytest.raises(ReadError, match="no such file"):
        open_triplets(tmp_path / "absent.fits")


def test_what_the_user_says_goes_before_the_file(tmp_path: Path) -> None:
    header = fits.Header({"CDELT1": -0.5 / 3600, "CDELT2": 0.5 / 3600, "FWHM": 3.0})
    fits.PrimaryHDU(STAMPS["science"], header).writeto(tmp_path / "x.fits")
    (own,) = open_triplets(tmp_path / "x.fits")
    assert (own.pixel_scale, own.fwhm) == (pytest.approx(0.5), 3.0)
    (told,) = open_triplets(tmp_path / "x.fits", pixel_scale=0.33, fwhm=4.2)
    assert (told.pixel_scale, told.fwhm) == (0.33, 4.2)
    assert told.meta["pixel_scale_from"] == "user"
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError):
            open_triplets(tmp_path / "x.fits", pixel_scale=bad)


def test_triplets_and_iterables_pass_through_lazily(tmp_path: Path) -> None:
    path = write_triplet(tmp_path / "x.fits")
    mine = Triplet(STAMPS["science"], id="mine")
    assert [t.id for t in open_triplets(mine)] == ["mine"]
    endless = itertools.chain([mine, path], itertools.repeat(mine))
    first = list(itertools.islice(open_triplets(endless), 3))
    assert [t.id for t in first] == ["mine", "x", "mine"]


def test_memory_does_not_grow_with_the_number_of_candidates(tmp_path: Path) -> None:
    path = tmp_path / "many.fits"
    fits.PrimaryHDU(np.zeros((50, 3, 64, 64), np.float32)).writeto(path)
    list(open_triplets(path))
    peaks = []
    for files in (1, 12):
        tracemalloc.start()
        assert sum(1 for _ in open_triplets([path] * files)) == 50 * files
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("cutoutScience", "science"),
        ("cutout_science", "science"),
        ("SCI_STAMP", "science"),
        ("b:cutoutScience_stampData", "science"),
        ("cutoutTemplate.stampData", "reference"),
        ("THUMBNAIL_REF", "reference"),
        ("TMPL", "reference"),
        ("image_diff", "difference"),
        ("cutoutDifference", "difference"),
        ("cutoutScience.fileName", None),
        ("prv_candidates", None),
        ("subid", None),
        ("refmag", None),
        ("newest", None),
    ],
)
def test_channel_words(name: str, channel: str | None) -> None:
    assert channel_of(name) == channel


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["N", "R", "D", "Scorr"], ["N", "R", "D"]),
        (["thumbs.red", "thumbs.ref", "thumbs.d"], ["thumbs.red", "thumbs.ref", "thumbs.d"]),
        (["new", "ref", "hotpants"], ["new", "ref", "hotpants"]),
        (["science", "d"], ["science"]),
        (["g", "r", "i"], []),
        (["r", "d"], []),
    ],
)  # fmt: skip
def test_one_letter_counts_where_it_completes_the_three(names: list[str], expected: list[str]) -> None:
    assert list(match_channels(names).values()) == expected


def test_a_layout_outranks_the_words() -> None:
    layout = Layout(fields={"science": ("calibrated",), "reference": ("science_ref",)})
    assert match_channels(["science", "calibrated", "science_ref"], layout) == {
        "science": "calibrated",
        "reference": "science_ref",
    }
    assert match_channels(["image", "template"]) == {"science": "image", "reference": "template"}


def test_layout_of_a_user_in_a_few_lines(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(
        'name = "MyCam"\npixel_scale = 0.4\nfwhm = 3.5\n'
        '[fields]\nscience = "A"\nreference = "B"\ndifference = "C"\n'
    )
    path = tmp_path / "x.fits"
    hdus = [fits.ImageHDU(stamp, name=name) for name, stamp in zip("CAB", STAMPS.values(), strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    (unknown,) = open_triplets(path)
    assert "layout" in (unknown.error or "")
    (triplet,) = open_triplets(path, layout=tmp_path / "my.toml")
    np.testing.assert_array_equal(triplet.science, STAMPS["reference"])
    np.testing.assert_array_equal(triplet.difference, STAMPS["science"])
    assert (triplet.pixel_scale, triplet.fwhm, triplet.meta["survey"]) == (0.4, 3.5, "MyCam")


@pytest.mark.parametrize(
    "text", ["pixel_scal = 1", "[fields]\nscienze = 'a'", "pixel_scale = 'wide'", "order = ['sci']", "= 3"]
)
def test_a_wrong_layout_is_an_error_not_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(UsageError, match=r"my\.toml"):
        load_layout(tmp_path / "my.toml")


def test_surveys_by_name() -> None:
    assert load_layout("ztf").pixel_scale == 1.01
    with pytest.raises(UsageError, match="ZTF"):
        load_layout("no-such-survey")
    for survey in surveys():
        assert survey.sources or survey.pixel_scale is None, f"{survey.name}: a number without its source"


def test_stem() -> None:
    assert [stem(name) for name in ("a/x.fits.fz", "x.fits.gz", "x.y.avro", ".fits")] == [
        "x",
        "x",
        "x.y",
        ".fits",
    ]


def test_no_permission_is_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "x.fits")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    (triplet,) = open_triplets(path)
    assert "ermission" in (triplet.error or "")
