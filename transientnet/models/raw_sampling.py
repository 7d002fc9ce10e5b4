"""The graph of how `preprocess` measures and samples: noise, seeing, shrink factors, the network's grid."""

from __future__ import annotations

import numpy as np

from ..prepare import preprocess as rules
from ..prepare.contract import InputContract
from ..triplet import QualityFlag
from .raw_graph import Graph, Value
from .raw_missing import Observed

__all__ = ["Flags", "background_and_noise", "shrink_factors", "to_grid"]

# Far above every observed value (see SENTINEL), far below overflow.
_FAR = 1e37


class Flags:
    """Quality flags of N rows, gathered as booleans and added up once."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._found: dict[QualityFlag, Value] = {}

    def mark(self, where: Value, flag: QualityFlag) -> None:
        """Set a flag where a line of booleans (N,) is true."""
        self._found[flag] = self._found[flag] | where if flag in self._found else where

    def __getitem__(self, flag: QualityFlag) -> Value:
        return self._found[flag]

    def usable(self) -> Value:
        """Rows without any of ``QualityFlag.UNUSABLE``."""
        refused = [where for flag, where in self._found.items() if flag & QualityFlag.UNUSABLE]
        found = refused[0]
        for where in refused[1:]:
            found = found | where
        return ~found

    def total(self) -> Value:
        """The bits: int32, shape (N,)."""
        numbers = [where.cast(np.int32) * int(flag) for flag, where in self._found.items()]
        found = numbers[0]
        for number in numbers[1:]:
            found = found + number
        return found


def shrink_factors(stack: Observed, fwhm: Value, side: Value, flags: Flags, contract: InputContract) -> Value:
    """Factor per row (N,), float64, at most 1; marks how the seeing is known.

    Parameters
    ----------
    stack : Observed
        Of N rows with three stamps each.
    fwhm : Value
        float32, shape (N,), in pixels.
    side : Value
        float64, shape (1,); the shorter side of the stamps as they came.
    flags : Flags
    contract : InputContract
    """
    graph, broadest = fwhm.graph, contract.fwhm_px[1]
    wanted = flags.usable()
    known = (fwhm > 0.0) & (fwhm < np.inf)
    rows = (wanted & ~known).rows()
    estimate = _estimate_fwhm(stack.values.take(rows * 3), stack.seen.take(rows * 3))
    estimate = (side < float(rules.MIN_SIDE)).where(np.nan, estimate)
    measured = graph.full(np.nan, fwhm.dim(0), dtype=np.float64).put(rows, estimate)
    unknown = measured.isnan()
    flags.mark(wanted & ~known & ~unknown, QualityFlag.FWHM_ESTIMATED)
    flags.mark(wanted & ~known & unknown, QualityFlag.FWHM_ASSUMED)
    seeing = known.where(fwhm.cast(np.float64), measured / rules.ESTIMATE_MARGIN)
    broad = wanted & (seeing > broadest)
    steps = (broadest / broad.where(seeing, broadest)).call("Log") / rules.FACTOR_STEP
    steps = steps.call("Round")
    flags.mark(broad & ~steps.equals(0.0), QualityFlag.RESAMPLED)
    return (steps * rules.FACTOR_STEP).call("Exp")


def _estimate_fwhm(values: Value, seen: Value) -> Value:
    """`estimate_fwhm` of science stamps (U, H, W): float64, shape (U,), NaN without a bright source."""
    graph, count, height, width = values.graph, values.dim(0), values.dim(1), values.dim(2)
    background, noise = (one.expand(1, 2) for one in background_and_noise(values, seen))
    noise = (noise > 0.0).where(noise, np.inf)
    snr = (values - background) * seen / noise
    # What was not seen is never a peak, and no pixel beside it is one.
    beside = snr + (1.0 - seen) * _FAR * _FAR
    reach = max(rules.FWHM_STEPS)

    def inner(image: Value, dy: int = 0, dx: int = 0) -> Value:
        rows = image.part(1, reach + dy, dy - reach)
        return rows.part(2, reach + dx, dx - reach)

    centre = inner(snr)
    least = background + noise * (0.999 * rules.FWHM_MIN_SNR)
    peak = (inner(values) > least) & (centre > rules.FWHM_MIN_SNR)
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        peak = peak & (centre >= inner(beside, dy, dx))
    across, down = width - 2 * reach, height - 2 * reach
    scores = (centre.minimum(_FAR) * peak.cast(np.float32)).reshape(count, down * across)
    brightest, places = scores.largest((down * across).minimum(rules.FWHM_MAX_SOURCES))

    source = (places / across + reach) * width + graph.op("Mod", places, across) + reach
    line = beside.reshape(count, height * width)
    logarithm = (brightest > 0.0).where(brightest, 1.0).call("Log")
    fwhm = graph.lift(np.nan, np.float32)
    for step in rules.FWHM_STEPS:
        below, above, left, right = (
            line.pick(source + shift).call("Log")
            for shift in (
                width * step,
                width * -step,
                graph.lift([step], np.int64),
                graph.lift([-step], np.int64),
            )
        )
        curvature = (logarithm * 4.0 - (below + above + left + right)) / (2.0 * step**2)
        measured = rules.FWHM_PER_SIGMA / (curvature > 0.0).where(curvature, np.nan).call("Sqrt")
        # A longer step beats the noise on a broad profile; on a sharp one it falls into the sky.
        use = (measured < np.inf) & (fwhm.isnan() | (fwhm > 2.0 * step))
        fwhm = use.where(measured, fwhm)
    real = (brightest > 0.0) & (brightest < _FAR) & (fwhm > rules.FWHM_SHARPEST) & (fwhm < np.inf)
    many = real.cast(np.int64).sum(1, keep=True)
    ordered = real.where(fwhm, np.inf).smallest(fwhm.dim(1))
    # The median of the sharper half of each stamp's sources.
    half = (many + 1) / 2
    pair = [ordered.pick(at.maximum(0)).cast(np.float64) for at in ((half - 1) / 2, half / 2)]
    return (many > 0).where((pair[0] + pair[1]) / 2.0, np.nan).reshape(count)


def to_grid(stack: Observed, factor: Value, size: int) -> tuple[Value, Value]:
    """Shrink and crop or pad around the centre.

    Parameters
    ----------
    stack : Observed
        Of N rows with three stamps each, (3 N, H, W).
    factor : Value
        float64, shape (N,).
    size : int

    Returns
    -------
    values, seen : Value
        float32, shape (3 N, size, size); zero where unseen.
    """
    graph, count = factor.graph, factor.dim(0)
    height, width = stack.values.dim(1), stack.values.dim(2)
    # An odd line fits an odd grid pixel by pixel; an even one lies half a pixel off its centre.
    before = [(size - length) / 2 for length in (height, width)]
    after = [size - length - start for length, start in zip((height, width), before, strict=True)]
    pads = graph.dims(0, *before, 0, *after)
    grids = [graph.op("Pad", image, pads, np.array(0, np.float32)) for image in (stack.values, stack.seen)]

    even = graph.op("Mod", height, graph.lift([2], np.int64)).minimum(
        graph.op("Mod", width, graph.lift([2], np.int64))
    )
    rows = (~factor.equals(1.0) | even.equals(0)).rows()
    width_of_pixel = (1.0 / factor.take(rows)).expand(1, 2)
    down, across = (_resampling_matrix(length, size, width_of_pixel) for length in (height, width))
    across = graph.op("Transpose", across, perm=[0, 2, 1]).expand(1)
    values, seen = (image.reshape(count, 3, height, width).take(rows) for image in (stack.values, stack.seen))
    level = (values + (1.0 - seen) * _FAR).min(2, 3, keep=True).cast(np.float64)
    seen = seen.cast(np.float64)
    flux = down.expand(1) @ ((values.cast(np.float64) - level) * seen) @ across
    weight = down.expand(1) @ seen @ across
    enough = (weight > rules.LEAST_SEEN).cast(np.float32)
    # Means over the seen part of each pixel; fluxes per stamp are restored by the normalisation.
    mean = (flux / weight.maximum(0.5)).cast(np.float32) * enough
    return tuple(  # type: ignore[return-value]
        grid.reshape(count, 3, size, size).put(rows, new).reshape(count * 3, size, size)
        for grid, new in zip(grids, (mean, enough), strict=True)
    )


def _resampling_matrix(length: Value, size: int, width: Value) -> Value:
    """Area weights (M, size, length), float64, for target pixels that are `width` (M, 1, 1) broad."""
    edges = length.graph.range(length, np.float64)
    low = width * (np.arange(size) - size / 2)[:, None] + length.cast(np.float64) / 2.0
    covered = (low + width).minimum(edges + 1.0) - low.maximum(edges)
    return covered.maximum(0.0) / width


def background_and_noise(values: Value, seen: Value) -> tuple[Value, Value]:
    """Median and noise (R,) of images (R, H, W) over every second pixel, or over all where few were seen."""
    height, width = values.dim(1), values.dim(2)

    def line(image: Value) -> Value:
        return image.reshape(image.dim(0), image.dim(1) * image.dim(2))

    sample, sampled = (line(image.part(1, 0, None, 2).part(2, 0, None, 2)) for image in (values, seen))
    holes = seen.sum(1, 2) < (height * width).cast(np.float32)
    few = (holes & (sampled.sum(1) < float(rules.CORE**2))).rows()
    whole = [image.take(few).reshape(few.dim(0), height * width) for image in (values, seen)]
    background, noise = (
        most.put(few, rest) for most, rest in zip(_robust(sample, sampled), _robust(*whole), strict=True)
    )
    return background, noise


def _robust(values: Value, seen: Value) -> tuple[Value, Value]:
    """Row-wise median and noise (R,) of what was seen in matrices (R, P)."""
    length = values.dim(1)
    half = length / 2
    unseen = 1.0 - seen
    many = seen.sum(1, keep=True)
    half_many = (many * 0.5).call("Floor")
    # So many of the unseen go below all others, the rest above: the middle stays at the same place.
    below = half.cast(np.float32) - half_many
    push = (unseen.running() - (below + 0.5)) * unseen * _FAR
    middle, _ = (values + push).smallest(half + 1, order=False).largest(2)
    upper, lower = middle.part(1, 0, 1), middle.part(1, 1, 2)
    median = ((many - half_many * 2.0).equals(0.0).where(lower, upper) + upper) / 2.0
    median = (many > 0.0).where(median, 0.0)

    deviation = (values - median).abs() * seen
    lowest = (deviation + push.maximum(0.0)).smallest(half + 1, order=False)
    share = ((half_many + 1.0).cast(np.float64) * rules.LOWER_HALF_MEAN).cast(np.float32)
    noise = lowest.sum(1, keep=True) / share
    # More than half of the pixels equal: a mostly flat stamp, where only the rest gives a scale.
    flat = noise <= deviation.max(1, keep=True) * 1e-6
    noise = flat.where(deviation.sum(1, keep=True) / many, noise)
    noise = (many > 0.0).where(noise, 0.0)
    return median.reshape(values.dim(0)), noise.reshape(values.dim(0))
