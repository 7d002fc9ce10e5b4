"""Brightness: what candidates tell goes before what their stamps show."""

from __future__ import annotations

import numpy as np

from transientnet import Triplet
from transientnet.evaluation.brightness import brightness


def stamp(flux: float, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).normal(100, 2, (31, 31))
    image[13:18, 13:18] += flux / 25
    return image.astype(np.float32)


def test_a_magnitude_of_the_packet_goes_first() -> None:
    told = [Triplet(stamp(0), stamp(0), stamp(50), meta={"magnitude": 15.0 + k, "snr": 3}) for k in range(12)]
    kind, values = brightness(told)
    assert kind == "magnitude"
    np.testing.assert_array_equal(values, 15.0 + np.arange(12))


def test_stamps_tell_where_nothing_else_does() -> None:
    masked = stamp(1000)
    masked[:, :9] = np.nan
    masked[0, 20] = 1e31
    fading = stamp(-1000)
    kind, values = brightness(
        [Triplet(stamp(0), None, difference) for difference in (stamp(1000), masked, fading, stamp(0))]
    )
    assert kind == "signal-to-noise in the difference stamp"
    # Noise of 25 pixels of 2 each: 10.
    np.testing.assert_allclose(values[:3], 100, rtol=0.15)
    assert values[3] < 4


def test_stamps_without_a_signal_are_unknown() -> None:
    blank = np.zeros((31, 31), np.float32)
    small = np.ones((3, 3), np.float32)
    lost = np.full((31, 31), np.nan, np.float32)
    _, values = brightness([Triplet(blank, None, d) for d in (blank, small, lost, None)])
    assert np.isnan(values).all()
