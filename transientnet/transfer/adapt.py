"""``adapt()``: transfer onto a survey's own labels. Torch is loaded when it is called, not before."""

from __future__ import annotations

from typing import Any

from .config import AdaptConfig, AdaptResult, Progress

__all__ = ["AdaptConfig", "AdaptResult", "Progress", "adapt"]


def adapt(
    labels: Any,
    *,
    cutouts: Any = None,
    groups: Any = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    base: str = "realbogus",
    output: str = "adapted",
    config: AdaptConfig | None = None,
    progress: Progress | None = None,
) -> AdaptResult:
    """Adapt a model to a survey's own labels, with the evidence that it helped.

    Parameters
    ----------
    labels : path, table or sequence of str
        A label table (see `transientnet.labels`), or N class names for an array of N stamps.
    cutouts : path or ndarray, optional
        What the table's ids, relative paths or rows speak of; or an array (N, 3, H, W).
    groups : sequence of length N, optional
        Sky object of each row: no split ever cuts through one.
    pixel_scale, fwhm : float, optional
        arcsec per pixel, and seeing in pixels, where neither table nor stamps tell.
    base : str
        Model to start from, as for `load_model`. Labels may be its classes, some of them, or others.
    output : str
        Folder; gets ``model.onnx``, ``weights_manifest.json``, ``MODEL_CARD.md``, ``metrics.json``
        and ``report.html``.
    config : AdaptConfig, optional
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Returns
    -------
    AdaptResult

    Raises
    ------
    LabelError
        The table cannot be used as it is; nothing was trained.
    MissingDependencyError
        Without the ``adapt`` extra.
    ModelUnavailableError
        The base model cannot be had, or is not one that can be adapted.

    Notes
    -----
    Ctrl-C leaves the best model so far, with ``interrupted`` set in the result. A run that was killed
    goes on where it stood when started again with the same input.
    """
    from ..errors import MissingDependencyError

    try:
        from .run import run
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("torch", "onnx", "onnxscript", "sklearn"):
            raise
        raise MissingDependencyError.for_extra("adapt", "Adapting a model") from error
    return run(
        labels,
        cutouts=cutouts,
        groups=groups,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
        base=base,
        output=output,
        config=config or AdaptConfig(),
        progress=progress,
    )
