"""The simulator, semi-synthesis and the example cutouts tell the truth about what they draw."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from training_reference.semisynthetic import SemiSynthesizer
from training_reference.simulator import BOGUS, DECAM_LIKE, REAL, ZTF_LIKE, Simulated, Telescope, simulate
from training_reference.simulator.detector import noise, saturate, unobserved
from training_reference.simulator.psf import Grid, draw_transfer
from training_reference.simulator.scene import draw_gallery, point_sources, sersic, sources_like
from transientnet import open_triplets
from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import preprocess
from transientnet.triplet import QualityFlag, Triplet

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
UNCROWDED = replace(ZTF_LIKE, stars=1e-6, stripes=0.0)


def of_kind(kind: str, n: int = 64, seed: int = 5, telescope: Telescope = ZTF_LIKE) -> Simulated:
    return simulate(n, seed, telescope=telescope, kinds=[kind] * n)


def distance(size: int) -> np.ndarray:
    """Distance of every pixel from the candidate's."""
    axis = np.arange(size) - size // 2
    return np.hypot(axis[:, None], axis)


def spread(images: np.ndarray) -> np.ndarray:
    """Robust noise per image."""
    centred = images - np.nanmedian(images, axis=(1, 2), keepdims=True)
    return 1.4826 * np.nanmedian(np.abs(centred), axis=(1, 2))


@pytest.fixture(scope="module")
def mixed() -> Simulated:
    return simulate(256, 1, telescope=ZTF_LIKE)


def test_a_seed_decides_everything(mixed: Simulated) -> None:
    again, other = simulate(256, 1, telescope=ZTF_LIKE), simulate(256, 2, telescope=ZTF_LIKE)
    np.testing.assert_array_equal(mixed.triplets, again.triplets)
    np.testing.assert_array_equal(mixed.kind, again.kind)
    assert not np.array_equal(mixed.triplets, other.triplets, equal_nan=True)


def test_truth_is_consistent(mixed: Simulated) -> None:
    assert mixed.triplets.shape == (256, 3, 63, 63)
    assert mixed.triplets.dtype == np.float32
    np.testing.assert_array_equal(mixed.real, np.isin(mixed.kind, list(REAL)))
    assert [REAL.get(kind, "") for kind in mixed.kind.tolist()] == mixed.morphology.tolist()
    assert 0.4 < mixed.real.mean() < 0.6
    assert np.isfinite(mixed.host_offset[mixed.morphology == "hosted"]).all()
    assert np.isnan(mixed.host_offset[mixed.morphology != "hosted"]).all()
    assert (mixed.snr[mixed.real] > 3).all()


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="kilonova"):
        simulate(2, 0, kinds=["supernova", "kilonova"])
    with pytest.raises(ValueError, match="3 of"):
        simulate(3, 0, kinds=["supernova"])


@pytest.mark.parametrize("seed", range(12))
def test_any_telescope(seed: int) -> None:
    batch = simulate(16, seed)
    scope = batch.telescope
    assert batch.triplets.shape == (16, 3, scope.size, scope.size)
    assert 0.15 <= scope.pixel_scale <= 9
    assert 1.2 <= scope.fwhm <= 10
    assert 25 <= scope.size <= 101
    c = scope.size // 2
    assert np.isfinite(batch.triplets[batch.real][:, :, c, c]).all()
    triplets = [
        Triplet(*stamps, fwhm=float(fwhm)) for stamps, fwhm in zip(batch.triplets, batch.fwhm, strict=True)
    ]
    assert preprocess(triplets, InputContract()).usable[batch.real].all()


@pytest.mark.parametrize("telescope", [ZTF_LIKE, DECAM_LIKE, replace(ZTF_LIKE, defocus=0.8, tracking=1.5)])
def test_flux_is_conserved_and_in_place(telescope: Telescope) -> None:
    grid = Grid.of(telescope)
    transfer = draw_transfer(np.random.default_rng(0), telescope, np.full(3, telescope.fwhm), grid)
    position = np.array([[[0.0, 0.0]], [[3.3, -5.25]], [[-7.5, 2.9]]], np.float32)
    image = grid.pixels(point_sources(grid, position, np.full((3, 1), 100, np.float32)) * transfer)
    np.testing.assert_allclose(image.sum(axis=(1, 2)), 100, rtol=1e-3)
    near = np.where(distance(grid.n) < 14, image, 0)
    axis = np.arange(grid.n) - grid.centre
    centroid = [(near.sum(axis=other) @ axis / near.sum(axis=(1, 2))) for other in (2, 1)]
    np.testing.assert_allclose(np.stack(centroid, axis=1), position[:, 0], atol=0.35)


def test_galaxies_have_unit_flux_and_sorted_sizes() -> None:
    rng, grid = np.random.default_rng(0), Grid.of(DECAM_LIKE)
    gallery = draw_gallery(rng, DECAM_LIKE, grid, 16)
    image = grid.pixels(sources_like(gallery, np.arange(16), grid, np.zeros((16, 2), np.float32)))
    np.testing.assert_allclose(image.sum(axis=(1, 2)), 1, rtol=1e-4)
    assert (np.diff(gallery.radius) >= 0).all()
    within = np.array([frame[distance(grid.n) < 5].sum() for frame in image])
    assert within[:4].mean() > within[-4:].mean() + 0.3
    # Transients follow the light: half of them lie within about a half-light radius.
    offsets = np.hypot(*gallery.offsets(rng, np.full(2000, 15), np.zeros(2000, bool)).T)
    assert 0.3 < np.median(offsets) / gallery.radius[15] < 1.1


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_noise_level(smoothing: float) -> None:
    """Sky noise as asked for, shot noise of sources on top, correlated by resampling only."""
    rng = np.random.default_rng(0)
    flat = np.stack([np.zeros((96, 96)), np.full((96, 96), 300.0)]).astype(np.float32)
    two = np.full(2, 2.0, np.float32)
    drawn = noise(rng, flat, two, np.full(2, 25.0, np.float32), smoothing)
    np.testing.assert_allclose(drawn.std(axis=(1, 2)), [2.0, 4.0], rtol=0.04)
    beside = np.corrcoef(drawn[0][:, 1:].ravel(), drawn[0][:, :-1].ravel())[0, 1]
    assert beside == pytest.approx(2 * smoothing / (1 + 2 * smoothing**2), abs=0.04)


def test_sky_noise_of_the_stamps() -> None:
    batch = of_kind("asteroid", telescope=UNCROWDED)
    science, reference, difference = (np.median(spread(batch.triplets[:, i])) for i in range(3))
    assert science == pytest.approx(UNCROWDED.unit, rel=0.2)
    assert reference == pytest.approx(UNCROWDED.unit * UNCROWDED.reference_noise, rel=0.25)
    assert difference == pytest.approx(np.hypot(science, reference), rel=0.15)


@pytest.mark.parametrize("kind", list(REAL))
def test_real_candidates_have_their_flux_in_the_difference(kind: str) -> None:
    batch = of_kind(kind, 96, telescope=UNCROWDED)
    clear = (batch.snr > 15) & np.isfinite(batch.triplets).all(axis=(1, 2, 3))
    inside = distance(63)[None] < (1.5 * batch.fwhm + 1)[:, None, None]
    flux = np.where(inside, batch.triplets[:, 2], 0).sum(axis=(1, 2))
    sign = np.where(batch.positive, 1, -1)
    assert clear.sum() > 20
    # A stray artefact may lie beside a candidate.
    assert (flux * sign > 0)[clear].mean() > 0.93
    expected = 10 ** (-0.4 * (batch.magnitude - 25))
    assert np.median((flux * sign / expected)[clear]) == pytest.approx(0.93, abs=0.12)
    # Brightening and fading are both there where nature has both.
    assert (0 < batch.positive.mean() < 1) == (kind in ("supernova", "nuclear", "variable star"))


def test_signal_to_noise_is_what_a_matched_filter_finds() -> None:
    batch = of_kind("hostless", 128, telescope=replace(UNCROWDED, kernel_error=0.0, registration=0.0))
    sigma = (batch.fwhm / 2.3548)[:, None, None]
    profile = np.exp(-0.5 * (distance(63)[None] / sigma) ** 2)
    profile /= np.sqrt((profile**2).sum(axis=(1, 2), keepdims=True))
    measured = np.nansum(batch.triplets[:, 2] * profile, axis=(1, 2)) / spread(batch.triplets[:, 2])
    faint = (batch.snr > 6) & (batch.snr < 40)
    assert np.median(measured[faint] / batch.snr[faint]) == pytest.approx(0.95, abs=0.15)


def reference_light(batch: Simulated, radius: np.ndarray) -> np.ndarray:
    """Brightest reference pixel within `radius` of the candidate, in its noise."""
    reference = batch.triplets[:, 1]
    light = (reference - np.nanmedian(reference, axis=(1, 2), keepdims=True)) / spread(reference)[
        :, None, None
    ]
    return np.nanmax(
        np.where(distance(reference.shape[-1])[None] <= radius[:, None, None], light, -9), axis=(1, 2)
    )


def test_hosts_and_counterparts_are_in_the_reference() -> None:
    """Hosted: light at the host's offset; variable: a source at the place itself; orphan: neither."""
    hosted = of_kind("supernova", telescope=UNCROWDED)
    assert (reference_light(hosted, hosted.host_offset + 2) > 5).mean() > 0.85
    assert np.ptp(hosted.host_offset) > 2
    nuclear = of_kind("nuclear", telescope=UNCROWDED)
    assert np.median(nuclear.host_offset) < 0.5
    variable = of_kind("variable star")
    assert (reference_light(variable, np.full(64, 1.5)) > 4).mean() > 0.85
    for kind in ("asteroid", "hostless"):
        orphan = of_kind(kind, telescope=UNCROWDED)
        assert (reference_light(orphan, np.full(64, 1.5)) < 5).mean() > 0.9


def test_some_asteroids_are_trailed() -> None:
    y, x = np.indices((51, 51)) - 25

    def elongation(kind: str) -> np.ndarray:
        batch = of_kind(kind, 128, telescope=replace(DECAM_LIKE, stars=1e-6, fill=np.nan))
        difference = np.nan_to_num(batch.triplets[:, 2] / spread(batch.triplets[:, 2])[:, None, None])
        source = np.where((distance(51) < 10) & (difference > 5), difference, 0)[batch.snr > 20]
        source = source[(source > 0).sum(axis=(1, 2)) > 5]
        moments = [np.cov(np.stack([y.ravel(), x.ravel()]), aweights=image.ravel()) for image in source]
        low, high = np.linalg.eigvalsh(np.array(moments)).T
        return np.asarray(np.sqrt(high / low))

    trailed, round_ = elongation("asteroid"), elongation("hostless")
    assert np.percentile(trailed, 80) > 1.4 > np.percentile(round_, 80)
    assert np.percentile(trailed, 25) < 1.3


def test_dipoles_have_no_net_flux() -> None:
    batch = of_kind("dipole", 96, telescope=UNCROWDED)
    inside = distance(63)[None] < (2 * batch.fwhm + 2)[:, None, None]
    clear = (batch.snr > 20) & np.isfinite(batch.triplets).all(axis=(1, 2, 3))
    difference = np.where(inside, batch.triplets[:, 2], 0)
    assert (
        np.median((np.abs(difference.sum(axis=(1, 2))) / np.abs(difference).sum(axis=(1, 2)))[clear]) < 0.35
    )
    assert (difference.max(axis=(1, 2)) * -difference.min(axis=(1, 2)) > 0)[clear].all()


@pytest.mark.parametrize("kind", BOGUS)
def test_bogus_candidates_are_where_a_detection_would_trigger(kind: str) -> None:
    batch = of_kind(kind, 48)
    loose = kind in ("noise peak", "noisy reference", "ghost")
    assert (batch.snr > 3).mean() > (0.6 if loose else 0.85)
    assert not batch.real.any()


def test_cosmic_rays_are_sharper_than_the_seeing() -> None:
    """Where the seeing is 4 px, a ray's brightest pixel towers over those two pixels away."""
    axis = (0, 2), (0, -2), (2, 0), (-2, 0)
    ratios = []
    for kind in ("cosmic ray", "hostless"):
        batch = of_kind(kind, telescope=replace(DECAM_LIKE, stars=1e-6, fill=np.nan))
        science = np.nan_to_num(batch.triplets[:, 0] / spread(batch.triplets[:, 0])[:, None, None])
        core = np.where(distance(51) < 5, science, 0)
        for image, peak in zip(science, core.reshape(64, -1).argmax(axis=1), strict=True):
            y, x = divmod(int(peak), 51)
            if image[y, x] > 15:
                ratios.append((kind, np.mean([image[y + dy, x + dx] for dy, dx in axis]) / image[y, x]))
    sharp, broad = ([r for kind, r in ratios if kind == k] for k in ("cosmic ray", "hostless"))
    assert np.median(sharp) < 0.25 < 0.35 < np.median(broad)


def test_unobserved_pixels_follow_the_survey() -> None:
    for fill in (np.nan, 0.0):
        batch = of_kind("chip edge", 12, telescope=replace(ZTF_LIKE, fill=fill, background=1000.0))
        lost = np.isnan(batch.triplets) if np.isnan(fill) else batch.triplets == 0
        assert (lost.any(axis=1).mean(axis=(1, 2)) > 0.2).all()
        assert np.isfinite(batch.triplets).all() == np.isfinite(fill)
    for seed in range(20):
        mask = unobserved(np.random.default_rng(seed), 63, 8, 20)
        assert not mask[31, 24:39].any()
        assert not mask[24:39, 31].any()


# --- semi-synthesis ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(mixed: Simulated) -> tuple[np.ndarray, ...]:
    return SemiSynthesizer(mixed.triplets, mixed.real, mixed.morphology, 3).draw(200)


def test_semisynthesis_is_decided_by_its_seed(mixed: Simulated, made: tuple[np.ndarray, ...]) -> None:
    again = SemiSynthesizer(mixed.triplets, mixed.real, mixed.morphology, 3).draw(200)
    for one, other in zip(made, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_semisynthesis_tells_the_truth(mixed: Simulated, made: tuple[np.ndarray, ...]) -> None:
    before = mixed.triplets.copy()
    triplets, real, morphology, kind = made
    assert triplets.shape == (200, 3, 63, 63)
    assert triplets.dtype == np.float32
    assert 0.3 < real.mean() < 0.6
    assert set(morphology[~real]) == {""}
    assert set(morphology[kind == "injected"]) == {"orphan"}
    assert set(morphology[kind == "injected variable"]) <= {"variable"}
    assert np.isfinite(triplets[:, :, 30:33, 30:33]).all()
    injected = triplets[kind == "injected"]
    centre = injected[:, 2, 30:33, 30:33].mean(axis=(1, 2)) - np.nanmedian(injected[:, 2], axis=(1, 2))
    assert (centre / spread(injected[:, 2]) > 0.5).mean() > 0.9
    reference = injected[:, 1, 30:33, 30:33].mean(axis=(1, 2)) - np.nanmedian(injected[:, 1], axis=(1, 2))
    assert (np.abs(reference) / spread(injected[:, 1]) < 4).all()
    SemiSynthesizer(mixed.triplets, mixed.real, mixed.morphology, 4).draw(20)
    np.testing.assert_array_equal(mixed.triplets, before)


def test_semisynthesis_refuses_what_it_cannot_use(mixed: Simulated) -> None:
    with pytest.raises(ValueError, match="47 px"):
        SemiSynthesizer(mixed.triplets[:, :, :41, :41], mixed.real, mixed.morphology, 0)
    nothing = np.full((3, 3, 63, 63), np.nan, np.float32)
    with pytest.raises(ValueError, match="0 usable stamps"):
        SemiSynthesizer(nothing, [1, 0, -1], ["", "", ""], 0).draw(1)


# --- bright, trailed and ill-matched ---------------------------------------------------------------------


def test_bright_reals_saturate_and_ring() -> None:
    """Far beyond what saturates: a flat science core, and a dark ring where the difference is sharpened."""
    batch = of_kind("hostless", 256, telescope=replace(UNCROWDED, saturated_core="clip"))
    assert batch.snr.max() > 2000
    bright = np.flatnonzero(batch.saturated)
    assert len(bright) > 5
    flat = np.nan_to_num(batch.triplets[bright, 0], nan=-1e9).reshape(len(bright), -1)
    science = np.sort(flat, axis=1)[:, ::-1]
    assert np.median(science[:, 1] / science[:, 0]) > 0.9
    sharpened = of_kind("hostless", 256, telescope=replace(UNCROWDED, saturated_core="clip", ringing=1.0))
    ring = (distance(63) > 2) & (distance(63) < 6)
    lowest = []
    for drawn in (batch, sharpened):
        difference = drawn.triplets[bright, 2] / spread(drawn.triplets[bright, 2])[:, None, None]
        lowest.append(np.nanmin(np.where(ring, difference, np.inf), axis=(1, 2)))
    assert (lowest[1] < lowest[0] - 5).mean() > 0.7
    assert (lowest[1] < -5).mean() > 0.5


@pytest.mark.parametrize("core", ["clip", "interpolate", "dark"])
def test_saturated_cores_hold_what_the_pipeline_leaves(core: str) -> None:
    rng = np.random.default_rng(0)
    star = 5000 * np.exp(-0.5 * (distance(63) / 3.0) ** 2)[None].astype(np.float32)
    found = saturate(rng, star, 1000.0, bleeds=False, core=core)
    assert len(found) == 1
    centre, rim = star[0, 31, 31], star[0, 31, 31 + 6]
    assert {"clip": abs(centre - 1000) < 100, "interpolate": abs(centre - rim) < 150, "dark": centre < 700}[
        core
    ]


def test_trails_reach_half_a_stamp_and_satellites_cross_it() -> None:
    batch = of_kind("asteroid", 256, telescope=replace(UNCROWDED, size=63))
    assert batch.trail.max() > 20
    assert 0.3 < (batch.trail > 0).mean() < 0.8
    crossing = of_kind("trail", 32, telescope=UNCROWDED)
    bright = crossing.snr > 60
    seen = crossing.triplets[:, 0] / spread(crossing.triplets[:, 0])[:, None, None]
    rim = np.concatenate([seen[:, 0], seen[:, -1], seen[:, :, 0], seen[:, :, -1]], axis=1)
    assert bright.sum() > 5
    assert ((rim > 4).sum(axis=1)[bright] >= 2).mean() > 0.8


def test_a_round_kernel_leaves_a_residual_of_a_defocused_exposure() -> None:
    """Flux in the wrong place: the difference has both signs and little net flux."""
    scope = replace(DECAM_LIKE, size=63, stars=1e-6, science_defocus=0.9, fill=np.nan)
    batch = of_kind("shape mismatch", 96, telescope=scope)
    assert (batch.snr > 4).mean() > 0.7
    inside = distance(63)[None] < 12
    difference = np.where(inside, np.nan_to_num(batch.triplets[:, 2]), 0)[batch.snr > 20]
    net = np.abs(difference.sum(axis=(1, 2))) / np.abs(difference).sum(axis=(1, 2))
    assert np.median(net) < 0.6


def test_stamps_of_large_telescopes_may_be_small_and_framed() -> None:
    sizes = {simulate(1, seed).telescope.size for seed in range(60)}
    assert min(sizes) <= 33
    framed = of_kind("hostless", 256, telescope=replace(UNCROWDED, masks_saturation=False))
    outer, inner = np.isnan(framed.triplets[:, 0, 0]).all(axis=1), np.isfinite(framed.triplets[:, 0, 31, 31])
    assert (outer & inner).any()


# --- beside GalSim ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fwhm", "beta"), [(2.0, 3.2), (4.0, 3.5), (7.0, 2.8)])
def test_point_spread_functions_are_those_of_galsim(fwhm: float, beta: float) -> None:
    galsim = pytest.importorskip("galsim")
    scope = replace(DECAM_LIKE, fwhm=fwhm, beta=beta, size=61, ellipticity=0.0, spike_flux=0.0)
    grid = Grid.of(scope)

    class Steady(np.random.Generator):
        """Draws the mean, so that the profile asked for is the one that is drawn."""

        def normal(self, loc: float = 0.0, scale: float = 1.0, size: object = None) -> np.ndarray:  # type: ignore[override]
            return np.full(size, loc, float)  # type: ignore[arg-type]

    plane = draw_transfer(Steady(np.random.PCG64(0)), scope, np.array([fwhm]), grid)
    mine = np.fft.fftshift(grid.pixels(plane)[0])
    c = grid.n // 2
    mine = mine[c - 20 : c + 21, c - 20 : c + 21]
    drawn = galsim.Moffat(beta=beta, fwhm=fwhm).drawImage(nx=41, ny=41, scale=1.0, method="auto").array
    # The grid is periodic: faint wings come round from the other side.
    np.testing.assert_allclose(mine, drawn, atol=0.02 * drawn.max())
    assert mine[20, 20] == pytest.approx(drawn[20, 20], rel=0.02)


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
def test_sersic_profiles_are_those_of_galsim(index: float) -> None:
    galsim = pytest.importorskip("galsim")
    theirs = galsim.Sersic(n=index, half_light_radius=1.0)
    radius = np.array([0.3, 0.6, 1.0, 1.5, 2.5, 4.0], np.float32)
    expected = np.array([theirs.xValue(float(r), 0.0) for r in radius]) / theirs.xValue(1.0, 0.0)
    np.testing.assert_allclose(sersic(radius, np.float32(index)), expected, rtol=0.05)


@pytest.mark.parametrize("smoothing", [0.2, 0.5])
def test_galsim_measures_the_correlation_that_the_noise_is_said_to_have(smoothing: float) -> None:
    galsim = pytest.importorskip("galsim")
    one = np.ones(1, np.float32)
    drawn = noise(np.random.default_rng(1), np.zeros((1, 400, 400), np.float32), one, one, smoothing)[0]
    measured = galsim.CorrelatedNoise(galsim.Image(drawn, scale=1.0))
    assert measured.getVariance() == pytest.approx(1.0, rel=0.03)
    found = measured.drawImage(galsim.Image(9, 9, scale=1.0)).array / measured.getVariance()
    # The correlation of the kernel (s, 1, s) with itself, along each axis.
    line = np.convolve([smoothing, 1.0, smoothing], [smoothing, 1.0, smoothing])
    line = np.pad(line / line[2], 2)
    np.testing.assert_allclose(found, np.outer(line, line), atol=0.03)


# --- examples -----------------------------------------------------------------------------------------


def test_examples_are_what_their_generator_writes(tmp_path: Path) -> None:
    module = runpy.run_path(str(EXAMPLES / "make_examples.py"))
    module["main"](tmp_path)
    names = sorted(path.name for path in (EXAMPLES / "cutouts").glob("*.fits"))
    assert (
        names
        == sorted(path.name for path in tmp_path.iterdir())
        == sorted(f"{n}.fits" for n in module["EXAMPLES"])
    )
    for name in names:
        with fits.open(EXAMPLES / "cutouts" / name) as kept, fits.open(tmp_path / name) as written:
            assert [unit.name for unit in kept] == [unit.name for unit in written]
            for one, other in zip(kept[1:], written[1:], strict=True):
                # Another processor may round the last bits of a float32 otherwise.
                np.testing.assert_allclose(one.data, other.data, rtol=1e-3, atol=0.05)
                assert one.header == other.header


def test_examples_read_as_triplets() -> None:
    triplets = {t.id: t for t in open_triplets(str(EXAMPLES / "cutouts"))}
    assert len(triplets) == 13
    order = list(triplets)
    prepared = preprocess(list(triplets.values()), InputContract())
    quality = dict(zip(order, prepared.quality.tolist(), strict=True))
    assert [name for name in order if quality[name] & QualityFlag.BLANK] == ["blank"]
    assert [name for name in order if quality[name] & QualityFlag.MISSING_REFERENCE] == ["missing_reference"]
    assert quality["chip_edge"] & QualityFlag.MASKED
    assert prepared.usable.sum() == 12
    assert triplets["supernova_on_galaxy"].pixel_scale == pytest.approx(0.4)
    assert all(t.fwhm is not None and 1 < t.fwhm < 5 for t in triplets.values())
