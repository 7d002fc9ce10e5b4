"""The graph of `transientnet.prepare.missing`: which pixels of a stamp were observed.

Missing pixels are carried as a mask beside values of zero, since a NaN has no defined place in a
reduction or an order. What is rare (sentinels, fills, margins) is looked at in the few rows that show a
sign of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..prepare import missing
from .raw_graph import Value

__all__ = ["Observed", "observed"]

_CORNERS = np.array([0, 3, 12, 15])
_BESIDE = np.array([1, 2, 13, 14])
_ACROSS = np.array([4, 7, 8, 11])
_ENDS = np.array([0, 1, -2, -1])


class Observed(NamedTuple):
    """Like-shaped stamps, R of them, with what was found.

    values : float32, shape (R, H, W); zero where nothing was observed.
    seen : float32, shape (R, H, W); 1 where observed, else 0.
    blank, padded, masked : bool, shape (R,); as the flags of `preprocess`.
    absent : bool, shape (R,); every pixel is NaN.
    """

    values: Value
    seen: Value
    blank: Value
    padded: Value
    masked: Value
    absent: Value


def observed(stack: Value) -> Observed:
    """Separate what was observed from sentinels, infinities, margins and fills.

    Parameters
    ----------
    stack : Value
        float32, shape (R, H, W), both sides 7 or more; NaN where missing.
    """
    graph, count = stack.graph, stack.dim(0)
    clean = (stack.abs() < missing.SENTINEL).all(1, 2)
    blank = clean & stack.max(1, 2).equals(stack.min(1, 2))
    margins = _has_margin(stack)
    rows = (~clean | margins | _may_be_filled(stack)).rows()

    few, margin = stack.take(rows), margins.take(rows)
    absent = few.isnan().all(1, 2)
    few = (few.abs() < missing.SENTINEL).where(few, np.nan)
    doubtful = _may_be_filled(few).rows()
    blanked, found = _blank_fills(few.take(doubtful))
    few = few.put(doubtful, blanked)
    filled = graph.full(0, rows.dim(0), dtype=np.bool_).put(doubtful, found)
    few, cut = _blank_margins(few, margin)
    unseen = few.isnan()

    no = graph.full(0, count, dtype=np.bool_)
    return Observed(
        values=stack.put(rows, unseen.where(0.0, few)),
        seen=graph.full(1.0, count, stack.dim(1), stack.dim(2)).put(rows, (~unseen).cast(np.float32)),
        blank=blank,
        padded=no.put(rows, (margin & filled) | cut),
        masked=~clean | no.put(rows, filled & ~margin),
        absent=no.put(rows, absent),
    )


def _has_margin(stack: Value) -> Value:
    lines = [stack.take(end, axis=axis) for axis in (1, 2) for end in (0, -1)]
    top, bottom, left, right = (line.equals(line.part(1, 0, 1)).all(1) for line in lines)
    return top | bottom | left | right


def _may_be_filled(stack: Value) -> Value:
    repeats = stack.part(2, 1).equals(stack.part(2, 0, -1)).count(1, 2) >= missing.FEWEST_FILLED
    middle = stack.take(stack.dim(1) / 2, axis=1)
    fractional = ~middle.equals(middle.call("Round")).all(1, 2)
    ends = stack.take(_ENDS, axis=1).take(_ENDS, axis=2).reshape(stack.dim(0), 16)
    corner, beside, across = (ends.take(places, axis=1) for places in (_CORNERS, _BESIDE, _ACROSS))
    return (repeats & fractional) | (corner.equals(beside) & corner.equals(across)).any(1)


def _blank_fills(image: Value) -> tuple[Value, Value]:
    """Images (M, H, W) with NaN for fills, and whether there were any.

    The candidates of each image are its corners and its most frequent values: a handful of slots.
    """
    graph, count, height, width = image.graph, image.dim(0), image.dim(1), image.dim(2)
    pixels = image.reshape(count, height * width)
    finite = ~pixels.isnan()
    ordered = finite.where(pixels, np.inf).smallest(height * width)
    valued = ordered < np.inf
    begins = graph.join(
        graph.full(1, count, 1, dtype=np.bool_), ~ordered.part(1, 1).equals(ordered.part(1, 0, -1)), axis=1
    )

    ends = image.take(np.array([0, -1]), axis=1).take(np.array([0, -1]), axis=2).reshape(count, 4)
    slots = graph.join(_most_frequent(ordered, valued, begins), ends, axis=1)
    occurs = pixels.expand(1).equals(slots.expand(2)).count(2)
    slots = (occurs >= missing.FEWEST_FILLED).where(slots, np.nan)

    usual = valued & ~ordered.expand(1).equals(slots.expand(2)).any(1)
    many, kinds = usual.count(1, keep=True), (usual & begins).count(1, keep=True)
    total = finite.count(1, keep=True).cast(np.float64)
    enough = many.cast(np.float64) >= (total * missing.USUAL).maximum(missing.FEWEST_USUAL)
    distinct = kinds.cast(np.float64) > many.cast(np.float64) * missing.DISTINCT
    middle = _middle(usual.where(ordered, np.inf), many)
    least = _middle(usual.where((ordered - middle).abs(), np.inf), many) * missing.FILLED_FROM_OTHERS

    filled = image.expand(1).equals(slots.expand(2, 3))
    above, below = filled.part(2, 1), filled.part(2, 0, -1)
    blocks = (above.part(3, 1) & above.part(3, 0, -1) & below.part(3, 1) & below.part(3, 0, -1)).count(2, 3)
    holds = ends.expand(1).equals(slots.expand(2))
    solid = distinct & (blocks.cast(np.float64) > occurs.cast(np.float64) * missing.SOLID)
    distance = usual.where(ordered, np.inf).expand(1) - slots.expand(2)
    nearest = distance.isnan().where(np.inf, distance.abs()).min(2)
    far = holds.any(2) & (nearest > least)
    highest = usual.where(ordered, -np.inf).max(1, keep=True)
    fills = (slots < highest) & ~holds.all(2) & (solid | far) & enough
    gone = (filled & fills.expand(2, 3)).any(1)
    return gone.where(np.nan, image), fills.any(1)


def _most_frequent(ordered: Value, valued: Value, begins: Value) -> Value:
    """The values (M, 3) that come most often in ordered rows; of equally frequent ones the highest."""
    graph, count, length = ordered.graph, ordered.dim(0), ordered.dim(1)
    run = begins.cast(np.int64).running() - 1
    none = graph.full(0, count, length, dtype=np.int64)
    numbers = graph.op(
        "ScatterElements", none, run, valued.cast(np.int64), axis=1, reduction="add", dtype=np.int64
    )
    values = graph.op("ScatterElements", graph.full(np.inf, count, length), run, ordered, axis=1)
    _, places = (numbers * length + graph.range(length)).largest(missing.FILLS)
    return values.pick(places)


def _middle(values: Value, many: Value) -> Value:
    """Median (M, 1) of the `many` (M, 1) finite values of each row; the rest is infinite."""
    ordered, number = values.smallest(values.dim(1)), many.cast(np.int64)
    half = number / 2
    low = (number - half - 1).maximum(0)
    return (ordered.pick(low) + ordered.pick(half.minimum(values.dim(1) - 1))) / 2.0


def _blank_margins(image: Value, wanted: Value) -> tuple[Value, Value]:
    """Images (M, H, W) with NaN for constant margins, and whether there were any, of the rows `wanted`."""
    found = None
    for axis, reverse in ((1, 0), (1, 1), (2, 0), (2, 1)):
        end = -1 if reverse else 0
        value = image.take(end, axis=axis).take(0, axis=1).expand(1, 2)
        broken = (~image.equals(value).all(3 - axis)).cast(np.float32)
        depth = image.graph.op("CumSum", broken, np.array(1, np.int64), reverse=reverse).equals(0.0)
        deep = depth.count(1, keep=True)
        counts = (deep >= 2.0) | (deep.equals(1.0) & value.equals(0.0).reshape(image.dim(0), 1))
        margin = depth & counts & wanted.expand(1)
        image = margin.expand(3 - axis).where(np.nan, image)
        found = margin.any(1) if found is None else found | margin.any(1)
    assert found is not None
    return image, found
