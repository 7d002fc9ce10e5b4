"""``transientnet cut``: triplets out of full frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .console import Quiet, note, say

__all__ = ["cut"]


def cut(
    science: Annotated[
        str, typer.Option(help="Science frame: FITS, .fz, .gz; 'f.fits[SCI]' for an extension.")
    ],
    catalog: Annotated[str, typer.Option(help="Positions: CSV, ECSV, SExtractor, VOTable, FITS or Parquet.")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder for a FITS file per candidate, or one .npz.")
    ],
    reference: Annotated[str | None, typer.Option(help="Reference (template) frame.")] = None,
    difference: Annotated[str | None, typer.Option(help="Difference frame.")] = None,
    size: Annotated[int, typer.Option(help="Side of the stamps in pixels of the science frame.")] = 63,
    x: Annotated[str | None, typer.Option("--x", help="Column with x in pixels.")] = None,
    y: Annotated[str | None, typer.Option("--y", help="Column with y in pixels.")] = None,
    ra: Annotated[str | None, typer.Option(help="Column with right ascension.")] = None,
    dec: Annotated[str | None, typer.Option(help="Column with declination.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the candidate's name.")] = None,
    group_column: Annotated[str | None, typer.Option(help="Column with the sky object.")] = None,
    one_based: Annotated[
        bool | None,
        typer.Option(
            "--one-based/--zero-based", help="Number of the first pixel; *_IMAGE columns start at 1."
        ),
    ] = None,
    mask: Annotated[str | None, typer.Option(help="Mask frame for science and difference.")] = None,
    mask_bits: Annotated[int | None, typer.Option(help="Bits of the masks that mean a bad pixel.")] = None,
    pixel_scale: Annotated[
        float | None, typer.Option(help="arcsec per pixel, known better than by the WCS.")
    ] = None,
    fwhm: Annotated[
        float | None, typer.Option(help="Seeing in pixels, known better than by the header.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Cut triplets of stamps around the positions of a catalogue."""
    import numpy as np

    from ..cutting.cut import cut_triplets
    from ..cutting.cutouts import write_fits, write_npz
    from ..cutting.frames import open_frame
    from ..errors import EmptyInputError, UsageError
    from ..results.columns import plural
    from ..triplet import Triplet

    folder = output.endswith(("/", os.sep)) or os.path.isdir(output)
    target = Path(output)
    ending = "" if folder else target.suffix.lower()
    if ending not in ("", ".npz") or (not ending and not folder and target.exists()):
        raise UsageError(
            f"--output {output} is neither a folder nor an .npz file; a slash at its end makes it a folder"
        )
    if folder and target.is_dir() and any(target.iterdir()):
        raise UsageError(f"--output {output} is not empty: stamps of two runs would be mixed in it")
    frame = open_frame(science, "science", mask_bits=mask_bits)
    triplets = cut_triplets(
        frame,
        reference,
        difference,
        catalog,
        size=size,
        x=x,
        y=y,
        ra=ra,
        dec=dec,
        id_column=id_column,
        group_column=group_column,
        one_based=one_based,
        mask=mask,
        mask_bits=mask_bits,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
    )
    flagged = refused = 0

    def usable() -> Iterator[Triplet]:
        nonlocal flagged, refused
        for triplet in triplets:
            if triplet.error is None:
                flagged += any(np.isnan(stamp).any() for stamp in triplet.stamps if stamp is not None)
                yield triplet
            else:
                refused += 1
                say(f"{triplet.id}: {triplet.error}")

    if ending:
        written = write_npz(usable(), target)
    else:
        written = sum(1 for _ in write_fits(usable(), target, wcs=frame.wcs))
    note(
        f"{plural(written + refused, 'candidate')} in {catalog}: {written:,} cut into {output}; "
        f"{flagged:,} flagged (pixels missing), {refused:,} refused"
    )
    if not written:
        raise EmptyInputError(f"no position in {catalog} lies on {science}: nothing was written")
