"""``adapt()``: transfer onto a survey's own labels. Torch is loaded when it is called, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import AdaptConfig, Progress, silent
from .outcome import AdaptResult

__all__ = ["adapt"]


def adapt(
    labels: Any = None,
    *,
    cutouts: Any = None,
    groups: Any = None,
    unlabelled: Any = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    base: str = "realbogus",
    output: str = "adapted",
    config: AdaptConfig | None = None,
    progress: Progress | None = None,
) -> AdaptResult:
    """Adapt a model to a survey's own labels, with the evidence that it helped; or to a night without labels.

    Parameters
    ----------
    labels : path, table or sequence of str, optional
        A label table (see `transientnet.labels.table`), or N class names for an array of N stamps. Without
        labels, `unlabelled` candidates choose the threshold, and the network stays as it is.
    cutouts : path or ndarray, optional
        File or folder that the table's ids, relative paths or rows refer to; or an array (N, 3, H, W).
    groups : sequence of length N, optional
        Sky object of each row: no split ever cuts through one.
    unlabelled : path, glob, directory, ndarray or iterable of Triplet, optional
        Candidates of a night, as `classify` takes them: for a model of bogus and real. A few hundred are
        better than a hundred.
    pixel_scale, fwhm : float, optional
        arcsec per pixel, and seeing in pixels, where neither the table nor the stamps have them.
    base : str
        Model to start from, as for `load_model`. Labels may be its classes, some of them, or others.
    output : str
        New or empty folder, or that of an earlier adaptation; gets ``model.onnx``,
        ``weights_manifest.json``, ``MODEL_CARD.md``, ``metrics.json`` and ``report.html``.
    config : AdaptConfig, optional
        All other choices.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Returns
    -------
    AdaptResult

    Raises
    ------
    LabelError
        The table cannot be used as it is; nothing was trained.
    UsageError
        Neither labels nor unlabelled candidates are given, the base model does not separate bogus from real,
        the folder holds other files, another adaptation writes to it, or an option makes no sense.
    EmptyInputError
        No unlabelled candidate can be used.
    MissingDependencyError
        Without the ``adapt`` extra.
    ModelUnavailableError
        The base model is not available, or is not one that can be adapted.

    Notes
    -----
    Ctrl-C leaves the best model so far, with ``interrupted`` set in the result. A run that was killed
    goes on where it stood when started again with the same labels and stamps and the same choices for
    the training; name, version, description, licence and citation may differ.
    """
    from ..errors import MissingDependencyError, UsageError

    if labels is None and unlabelled is None:
        raise UsageError("adapt needs labels, or unlabelled candidates, or both")
    if labels is None and (cutouts is not None or groups is not None):
        raise UsageError("cutouts and groups belong to labels; unlabelled candidates are given by themselves")
    try:
        if labels is None:
            from .night import start_without_labels

            return start_without_labels(
                unlabelled,
                base,
                Path(output),
                pixel_scale=pixel_scale,
                fwhm=fwhm,
                config=config or AdaptConfig(),
                report=progress or silent,
            )
        from .run import run
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("torch", "onnx", "onnxscript", "scipy"):
            raise
        raise MissingDependencyError.for_extra("adapt", "Adapting a model") from error
    return run(
        labels,
        cutouts=cutouts,
        groups=groups,
        unlabelled=unlabelled,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
        base=base,
        output=output,
        config=config or AdaptConfig(),
        progress=progress,
    )
