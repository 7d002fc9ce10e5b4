"""The graph of `transientnet.prepare.preprocess`: raw stamps in, the network's tensor and quality flags out.

Every step bears the name of its counterpart there. All three stamps of all rows pass together; a row's own
shrink factor makes its own resampling matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..prepare import preprocess as rules
from ..prepare.contract import InputContract
from ..triplet import QualityFlag
from .raw_graph import Value
from .raw_missing import observed
from .raw_sampling import Flags, background_and_noise, shrink_factors, to_grid

__all__ = ["PreparedGraph", "prepared"]


class PreparedGraph(NamedTuple):
    """As `transientnet.prepare.preprocess.Prepared`, in a graph.

    tensor : float32, shape (N, 3, S, S)
    flags : Flags
    """

    tensor: Value
    flags: Flags


def prepared(stamps: Value, fwhm: Value, contract: InputContract) -> PreparedGraph:
    """What `preprocess` makes of raw stamps.

    Parameters
    ----------
    stamps : Value
        float32, shape (N, 3, H, W).
    fwhm : Value
        float32, shape (N,), in pixels; not positive, NaN or infinite where unknown.
    contract : InputContract
    """
    graph, size, count = stamps.graph, contract.size, stamps.dim(0)
    side = stamps.dim(2).minimum(stamps.dim(3)).cast(np.float64)
    # Below the least side nothing is judged: enlarged, such stamps need no case of their own.
    short = [(rules.MIN_SIDE - stamps.dim(axis)).maximum(0) for axis in (2, 3)]
    pads = graph.dims(0, 0, 0, 0, 0, 0, *short)
    stamps = graph.op("Pad", stamps, pads, np.array(np.nan, np.float32))
    height, width = stamps.dim(2), stamps.dim(3)
    stack = observed(stamps.reshape(count * 3, height, width))

    def channels(rows: Value) -> list[Value]:
        return [rows.reshape(count, 3).take(channel, axis=1) for channel in range(3)]

    flags = Flags(graph)
    _, no_reference, no_difference = channels(stack.absent)
    _policy(flags, no_reference, no_difference, contract)
    factor = shrink_factors(stack, fwhm, side, flags, contract)
    values, seen = to_grid(stack, factor, size)
    image, bad = _normalise(values, seen, contract)

    half, core = size // 2, rules.CORE // 2
    middle = (half - core, half + core + 1)
    off_chip = seen.part(1, *middle).part(2, *middle).sum(1, 2).equals(0.0)
    small, uncovered = (side * factor < limit for limit in (float(rules.MIN_SIDE), size - 0.5))
    found = {
        QualityFlag.BLANK: channels(stack.blank | bad),
        QualityFlag.OFF_CHIP: channels(off_chip),
        QualityFlag.PADDED: channels(stack.padded),
        QualityFlag.MASKED: channels(stack.masked),
    }

    def look(channel: int, there: Value) -> None:
        """Take over what was found in one stamp of the rows where it is there, and not too small."""
        flags.mark(there & small, QualityFlag.TOO_SMALL)
        for flag, where in found.items():
            flags.mark(there & ~small & where[channel], flag)
        flags.mark(there & ~small & uncovered, QualityFlag.PADDED)

    look(0, flags.usable())
    # A template that is all one value is a template that does not exist there.
    empty = small | found[QualityFlag.BLANK][1] | found[QualityFlag.OFF_CHIP][1]
    there = ~no_reference & flags.usable()
    _policy(flags, there & empty, there & empty & no_difference, contract)
    reference = there & ~empty
    look(1, reference)
    difference = ~no_difference & flags.usable()
    look(2, difference)

    image = image.reshape(count, 3, size, size)
    flux = image.take(2, axis=1).part(1, *middle).part(2, *middle).sum(1, 2)
    sign = (flux < -rules.LEAST_FLUX).where(graph.lift(-1.0, np.float32), 1.0)
    usable = flags.usable().cast(np.float32)
    scale = [usable, usable * reference.cast(np.float32), usable * difference.cast(np.float32) * sign]
    tensor = image * graph.join(*(one.expand(1) for one in scale), axis=1).expand(2, 3)
    return PreparedGraph(tensor, flags)


def _policy(flags: Flags, no_reference: Value, no_difference: Value, contract: InputContract) -> None:
    """Flags for absent stamps, after the contract's declared policy."""
    flags.mark(no_reference, QualityFlag.MISSING_REFERENCE)
    flags.mark(no_difference, QualityFlag.MISSING_DIFFERENCE)
    flags.mark(no_reference & no_difference, QualityFlag.MISSING_REQUIRED)
    if contract.missing_reference == "refuse":
        flags.mark(no_reference, QualityFlag.MISSING_REQUIRED)
    if contract.missing_difference == "refuse":
        flags.mark(no_difference, QualityFlag.MISSING_REQUIRED)


def _normalise(values: Value, seen: Value, contract: InputContract) -> tuple[Value, Value]:
    """Stretched images (R, S, S), zero where unseen, and which of them have no contrast."""
    background, noise = background_and_noise(values, seen)
    scale = 1.0 / (noise * contract.softening)
    good = (scale > 0.0) & (scale < np.inf) & (background.abs() < np.inf)
    background, scale = good.where(background, 0.0), good.where(scale, 1.0)
    scaled = (values - background.expand(1, 2)) * scale.expand(1, 2) * seen
    return _arcsinh(scaled), ~good


def _arcsinh(x: Value) -> Value:
    """The operator Asinh goes element by element through the C library: ten times slower."""
    size = x.abs()
    # The hypotenuse of x and 1, without the square of what may be large.
    longer = size.maximum(1.0)
    ratio = size.minimum(1.0) / longer
    hypotenuse = longer * (ratio * ratio + 1.0).call("Sqrt")
    return (size + hypotenuse).call("Log") * (x / size.maximum(np.finfo(np.float32).tiny))
