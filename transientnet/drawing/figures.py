"""Matplotlib figures of stamps, explanations and probabilities."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError
from ..triplet import CHANNELS, Triplet
from .charts import COLOURS
from .stamps import PALETTE, levels, sign_of

__all__ = ["plot_explanation", "plot_predictions", "plot_triplet"]

# Dashes separate lines where colours do not: in print, and one over the other.
_LINES = ("-", "--", ":", "-.", (0, (1, 4)), (0, (12, 4)))
_TICK_COLOUR = "#f0e442"


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError.for_extra("plot", "Plotting") from error

    class Picture(Figure):  # type: ignore[misc, unused-ignore]
        """A figure that a notebook shows, without pyplot: no global state, no window, safe in threads."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=110)
            return stream.getvalue()

    figure = Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Any, image: npt.NDArray[np.uint8] | None, title: str) -> None:
    """One panel of RGB pixels, origin at the lower left."""
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    if image is None or not image.size:
        axes.text(0.5, 0.5, "absent" if image is None else "blank", ha="center", transform=axes.transAxes)
        return
    axes.imshow(image, origin="lower", interpolation="nearest")


def _mark(
    axes: Any, shape: tuple[int, ...], pixel_scale: float | None, meta: Mapping[str, Any] | None = None
) -> None:
    """Ticks beside the target, a bar of a round number of arcseconds, arrows to the north and east."""
    height, width = shape[:2]
    y, x, reach = (height - 1) / 2, (width - 1) / 2, min(height, width)
    line = {"color": _TICK_COLOUR, "linewidth": 1.6}
    axes.plot([x + 0.1 * reach, x + 0.18 * reach], [y, y], **line)
    axes.plot([x, x], [y + 0.1 * reach, y + 0.18 * reach], **line)
    if pixel_scale:
        length = _round_number(0.3 * width * pixel_scale)
        start, low = 0.05 * width, 0.06 * height
        axes.plot([start, start + length / pixel_scale], [low, low], **line)
        axes.text(start, low + 0.03 * height, f"{length:g}″", color=_TICK_COLOUR, fontsize=9)
    if meta and {"north", "east"} <= meta.keys():
        _compass(axes, width, height, meta)


def _compass(axes: Any, width: int, height: int, meta: Mapping[str, Any]) -> None:
    x, y, reach = 0.82 * width, 0.18 * height, 0.11 * min(width, height)
    for name in ("north", "east"):
        angle = math.radians(meta[name])
        tip = x - reach * math.sin(angle), y + reach * math.cos(angle)
        arrow = {"arrowstyle": "->", "color": _TICK_COLOUR, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tip, (x, y), arrowprops=arrow)
        place = x - 1.5 * reach * math.sin(angle), y + 1.5 * reach * math.cos(angle)
        axes.text(*place, name[0].upper(), color=_TICK_COLOUR, fontsize=8, ha="center", va="center")


def _round_number(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step for step in (1, 2, 5) if step * power <= value) * power)


def _finish(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    if path is not None:
        figure.savefig(path, dpi=110)
    return figure


def plot_triplet(
    triplet: Triplet, path: str | os.PathLike[str] | None = None, *, stretch: str = "asinh"
) -> Any:
    """Science, reference and difference side by side.

    Parameters
    ----------
    triplet : Triplet
    path : path, optional
        Also write the figure there.
    stretch : {"asinh", "zscale", "linear"}
        See `stamps.levels`.

    Returns
    -------
    matplotlib.figure.Figure
        With ticks beside the target, a scale bar where the pixel scale is known, arrows to the north and
        east where the WCS is, the sign of the subtraction where the survey gives it, and missing pixels in
        blue.

    Raises
    ------
    MissingDependencyError
        Without the ``plot`` extra.
    """
    figure = _figure(7.5, 2.9)
    for axes, stamp, name in zip(figure.subplots(1, 3), triplet.stamps, CHANNELS, strict=True):
        image = None if stamp is None else PALETTE[levels(stamp, stretch)]
        _show(
            axes, image, f"{name} ({sign})" if name == "difference" and (sign := sign_of(triplet)) else name
        )
        if image is not None and image.size:
            _mark(axes, image.shape, triplet.pixel_scale, triplet.meta if name == "science" else None)
    figure.suptitle(triplet.id)
    return _finish(figure, path)


def plot_explanation(
    tensor: npt.NDArray[np.float32],
    importance: npt.NDArray[np.float32],
    label: str,
    title: str,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """The three stamps as the network sees them, and what the probability of `label` rests on.

    Parameters
    ----------
    tensor : ndarray of float32, shape (3, S, S)
    importance : ndarray of float32, shape (S, S)
        Probability lost when the surroundings of a pixel are hidden.
    label, title : str
    path : path, optional
    """
    figure = _figure(10.2, 3.1)
    panels = figure.subplots(1, 4)
    for axes, stamp, name in zip(panels[:3], tensor, CHANNELS, strict=True):
        _show(axes, PALETTE[levels(stamp, "linear")], name)
    limit = max(float(np.abs(importance).max()), 1e-3)
    shown = panels[3].imshow(
        importance, origin="lower", cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    panels[3].set_title(f"evidence for {label}")
    panels[3].set_xticks([])
    panels[3].set_yticks([])
    figure.colorbar(shown, ax=panels[3], label="probability lost when hidden")
    figure.suptitle(title)
    return _finish(figure, path)


def plot_predictions(
    classes: Sequence[str],
    probabilities: npt.NDArray[np.float32],
    title: str,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Histogram of each class's probability.

    Parameters
    ----------
    classes : sequence of str, length K
    probabilities : ndarray of float32, shape (N, K)
        NaN rows were not scored.
    title : str
        What was scored, or by what.
    path : path, optional
    """
    figure = _figure(6.0, 3.4)
    axes = figure.subplots()
    usable = np.isfinite(probabilities).all(axis=1)
    # Of two classes one is enough.
    for k in range(1 if len(classes) == 2 else 0, len(classes)):
        values = probabilities[usable, k]
        bins = np.linspace(0, 1, 41).tolist()
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": _LINES[k % len(_LINES)]}
        axes.hist(values, bins=bins, histtype="step", linewidth=1.8, label=classes[k], **style)
    axes.set(xlabel="probability", ylabel="candidates", yscale="log" if usable.sum() > 100 else "linear")
    axes.set_title(f"{title}: {usable.sum()} scored, {(~usable).sum()} not")
    axes.legend()
    return _finish(figure, path)
