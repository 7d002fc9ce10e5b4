"""Pictures in the astronomer's conventions: origin at the lower left, zscale, grey."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError
from ..triplet import CHANNELS, Triplet

__all__ = ["plot_explanation", "plot_predictions", "plot_triplet"]


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError.for_extra("adapt", "Plotting") from error

    class Picture(Figure):  # type: ignore[misc, unused-ignore]
        """A figure that a notebook shows, without pyplot: no global state, no window, safe in threads."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=110)
            return stream.getvalue()

    figure = Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Any, stamp: npt.NDArray[Any] | None, title: str) -> None:
    from astropy.visualization import ZScaleInterval

    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    if stamp is None or stamp.ndim != 2 or not np.isfinite(np.ma.filled(stamp.astype(float), np.nan)).any():
        axes.text(0.5, 0.5, "absent" if stamp is None else "blank", ha="center", transform=axes.transAxes)
        return
    image = np.ma.masked_invalid(stamp)
    low, high = ZScaleInterval().get_limits(image.compressed())
    axes.imshow(image, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="nearest")


def _finish(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    if path is not None:
        figure.savefig(path, dpi=110)
    return figure


def plot_triplet(triplet: Triplet, path: str | os.PathLike[str] | None = None) -> Any:
    """Science, reference and difference side by side, each with its own zscale."""
    figure = _figure(7.5, 2.9)
    for axes, stamp, name in zip(figure.subplots(1, 3), triplet.stamps, CHANNELS, strict=True):
        _show(axes, stamp, name)
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
        _show(axes, stamp, name)
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
        axes.hist(values, bins=bins, histtype="step", linewidth=1.8, label=classes[k])
    axes.set(xlabel="probability", ylabel="candidates", yscale="log" if usable.sum() > 100 else "linear")
    axes.set_title(f"{title}: {usable.sum()} scored, {(~usable).sum()} not")
    axes.legend()
    return _finish(figure, path)
