"""``transientnet cut``: triplets out of full frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["cut"]


def cut(
    science: Annotated[
        str, typer.Option(help="Science frame: FITS, .fz, .gz; 'f.fits[SCI]' for an extension.")
    ],
    catalog: Annotated[str, typer.Option(help="Positions: CSV, ECSV, SExtractor, VOTable, FITS or Parquet.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for a FITS file per candidate, or one .npz.")
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
    pixel_scale: Annotated[float | None, typer.Option(help="arcsec per pixel, if there is no WCS.")] = None,
    fwhm: Annotated[float | None, typer.Option(help="Seeing in pixels, if the header does not tell.")] = None,
) -> None:
    """Cut triplets of stamps around the positions of a catalogue."""
    from ..cutting.cutouts import write_fits, write_npz
    from ..cutting.frames import cut_triplets, open_frame
    from ..errors import EmptyInputError, UsageError
    from ..triplet import Triplet

    stack = output.suffix.lower() == ".npz"
    if not stack and (output.suffix or output.is_file()) and not output.is_dir():
        raise UsageError(f"--output {output} is neither a folder nor a .npz file")
    if not stack and output.is_dir() and any(output.iterdir()):
        raise UsageError(
            f"--output {output} is not empty; stamps of two runs in one folder would be mixed up"
        )
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
    left_out = 0

    def cut_ones() -> Iterator[Triplet]:
        nonlocal left_out
        for triplet in triplets:
            if triplet.error is None:
                yield triplet
            else:
                left_out += 1
                typer.echo(f"transientnet: {triplet.id}: {triplet.error}", err=True)

    if stack:
        written = write_npz(cut_ones(), output)
    else:
        written = sum(1 for _ in write_fits(cut_ones(), output, wcs=frame.wcs))
    if not written:
        raise EmptyInputError(f"none of the {left_out} positions in {catalog} has a place on {science}")
    typer.echo(
        f"{written} triplets cut into {output}" + (f", {left_out} left out" if left_out else ""), err=True
    )
