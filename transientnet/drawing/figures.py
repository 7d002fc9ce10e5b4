"""Pictures in the astronomer's conventions: origin at the lower left, zscale, grey."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError
from ..triplet import CHANNELS, Triplet

if TYPE_CHECKING:
    from ..models.explain import Explanation
    from ..results.predictions import Predictions

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


def plot_explanation(explanation: Explanation, path: str | os.PathLike[str] | None = None) -> Any:
    """The three stamps as the network sees them, the occlusion map over the last panel."""
    figure = _figure(10.2, 3.1)
    panels = figure.subplots(1, 4)
    for axes, stamp, name in zip(panels[:3], explanation.tensor, CHANNELS, strict=True):
        _show(axes, stamp, name)
    importance = explanation.importance
    limit = max(float(np.abs(importance).max()), 1e-3)
    shown = panels[3].imshow(
        importance, origin="lower", cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    panels[3].set_title(f"speaks for {explanation.label}")
    panels[3].set_xticks([])
    panels[3].set_yticks([])
    figure.colorbar(shown, ax=panels[3], label="probability lost when hidden")
    name = f"{explanation.triplet.id}: " if explanation.triplet.id else ""
    figure.suptitle(f"{name}{explanation.label} {explanation.probability:.3f} by {explanation.model}")
    return _finish(figure, path)


def plot_predictions(predictions: Predictions, path: str | os.PathLike[str] | None = None) -> Any:
    """Histogram of each class's probability."""
    figure = _figure(6.0, 3.4)
    axes = figure.subplots()
    usable = np.isfinite(predictions.probabilities).all(axis=1)
    # Of two classes one tells all.
    shown = predictions.classes[1:] if len(predictions.classes) == 2 else predictions.classes
    for name in shown:
        values = predictions.probabilities[usable, predictions.classes.index(name)]
        axes.hist(values, bins=np.linspace(0, 1, 41).tolist(), histtype="step", linewidth=1.8, label=name)
    axes.set(xlabel="probability", ylabel="candidates", yscale="log" if usable.sum() > 100 else "linear")
    axes.set_title(f"{predictions.model}: {usable.sum()} scored, {(~usable).sum()} not")
    axes.legend()
    return _finish(figure, path)
