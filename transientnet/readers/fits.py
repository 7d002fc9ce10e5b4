"""FITS files: extensions, cubes, tables of stamps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from ..files.paths import stem
from ..triplet import CHANNELS, Triplet
from .candidate import from_images, from_record, refuse_frames
from .files import path_columns, read_rows
from .grouping import channel_of_file
from .hdus import Hdu, hdu_image, header_values, load_hdus, pick
from .image import Image, facts
from .layouts import Layout, match_channels, match_role
from .stacks import declared_order, read_stack
from .vocabulary import ORDER_NAMES, SCALE_KEYS, SHARED_KEYS, channel_of, listed, normalise

__all__ = ["read", "read_hdulist"]

_NUMBERED = re.compile(r"(.*?)[ _.-]?([0-9]{1,9})")
#: ``SCI_ZTF18abc`` and ``ZTF18abc_SCI``: the shortest word at either end.
_TAGGED = (re.compile(r"(?P<word>.+?)[ _.-](?P<tag>.+)"), re.compile(r"(?P<tag>.+)[ _.-](?P<word>.+?)"))


#: The stamps of a candidate, and the keywords of their own HDUs where a file has many candidates.
_Candidate = tuple[dict[str, Image | None], Mapping[str, Any]]


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Candidates of one FITS file.

    Understood are: extensions named after the channels (several candidates by EXTVER, by what stands beside
    the channel in the name, by repetition, or as planes ``(N, H, W)``); as many unnamed images as the layout
    has channels, in its order; cubes ``(3, H, W)`` or ``(N, 3, H, W)``, one or an extension per candidate; a
    binary table with a column per stamp, for all three, or per file of a stamp, and a row per candidate; one
    image alone, which is the science stamp.

    Raises
    ------
    ReadError
        The file is damaged, or holds no stamps that can be assigned to channels.
    """
    found = load_hdus(path)
    if isinstance(found, tuple):
        _refuse_lone(path)
        image, scalars = found
        yield from _assembled(path, [({"science": image}, {})], scalars, layout)
    else:
        yield from read_hdulist(path, found, layout)


def read_hdulist(path: str, hdus: Sequence[Hdu], layout: Layout) -> Iterator[Triplet]:
    """Candidates of the HDUs of a file, as `read` finds them."""
    if images := [hdu for hdu in hdus if hdu.data is not None and hdu.data.size and hdu.kind == "image"]:
        yield from _assembled(path, _candidates(path, hdus, images, layout), header_values(hdus), layout)
    else:
        yield from _table_rows(path, hdus, layout)


def _assembled(
    path: str, candidates: Sequence[_Candidate], scalars: Mapping[str, Any], layout: Layout
) -> Iterator[Triplet]:
    if len(candidates) > 1:
        scalars = {key: scalars[key] for key in SHARED_KEYS if key in scalars}
    # The decoded stamps have their sampling, the WCS before these keywords.
    listed = layout.fields.get("pixel_scale", ())
    scalars = {key: value for key, value in scalars.items() if key not in SCALE_KEYS or key in listed}
    for i, (channels, own) in enumerate(candidates):
        name = stem(path) if len(candidates) == 1 else f"{stem(path)}_{i}"
        try:
            refuse_frames(channels, layout, path)
            yield from_images(channels, id=name, source=path, layout=layout, scalars={**scalars, **own})
        except ReadError as error:
            yield Triplet.unreadable(name, path, str(error))


def _refuse_lone(path: str) -> None:
    channel = channel_of_file(path)
    if channel in ("reference", "difference"):
        raise ReadError(
            f"{path}: by its name the {channel} stamp of a candidate whose science stamp is not there; "
            "name the science file too, or rename this one"
        )


def _candidates(path: str, hdus: Sequence[Hdu], images: Sequence[Hdu], layout: Layout) -> list[_Candidate]:
    """Channel to image, for each candidate."""
    if tagged := _by_tag(images):
        return [(_images(hdus, members), {"id": tag, **_own(members)}) for tag, members in tagged.items()]
    names = list(dict.fromkeys(hdu.name for hdu in images))
    numbers = {str(hdu.index): hdu for hdu in images}
    found = match_channels([*names, *numbers], layout)
    if not found and any(numbered := [_numbered(hdu) for hdu in images]):
        images = [other or hdu for other, hdu in zip(numbered, images, strict=True)]
        names = list(dict.fromkeys(hdu.name for hdu in images))
        found = match_channels(names, layout)
    _refuse_absent(path, images, found, layout)
    if not found and (tagged := _by_tag(images, least=1)):
        return [(_images(hdus, members), {"id": tag}) for tag, members in tagged.items()]
    unnamed = [hdu for hdu in images if not hdu.name]
    if found and (len(unnamed) < 2 or not numbers.keys().isdisjoint(found.values())):
        channels = {
            channel: [numbers[name]] if name in numbers else [hdu for hdu in images if hdu.name == name]
            for channel, name in found.items()
        }
        if "science" not in channels and len(unnamed) == 1:
            channels["science"] = unnamed
        if any(len(members) > 1 for members in channels.values()):
            return [(_images(hdus, members), _own(members)) for members in _by_version(channels)]
        members = {channel: members[0] for channel, members in channels.items()}
    elif len(images) == 1:
        return _cube(path, images[0], hdus, layout)
    elif all(_is_cube(hdu, len(layout.order)) for hdu in images):
        return [
            (channels, {**({"id": hdu.name} if hdu.name else {}), **_own({"science": hdu})})
            for hdu in images
            for channels, _ in _cube(path, hdu, hdus, layout)
        ]
    elif len(images) == len(layout.order) and (len(names) == 1 or len(unnamed) == len(images) - 1):
        members = dict(zip(layout.order, images, strict=True))
    else:
        raise ReadError(
            f"{path}: {len(images)} images named {names}: which is science, reference, difference is not "
            f"clear; name the extensions (or give their numbers) in a layout"
        )
    if list(members) == ["science"] and members["science"].data is not None:
        return _cube(path, members["science"], hdus, layout)
    return [(channels, {}) for channels in _planes(_images(hdus, members))]


def _refuse_absent(path: str, images: Sequence[Hdu], found: Mapping[str, str], layout: Layout) -> None:
    """An extension that the layout names is not replaced by another one."""
    there = [name for hdu in images for name in (hdu.name, str(hdu.index))]
    for channel in CHANNELS if len(images) > 1 else ():
        wanted = layout.fields.get(channel, ())
        if wanted and (channel in found or channel == "science") and not any(listed(there, wanted)):
            names = ", ".join(f"{hdu.index}: {hdu.name or 'unnamed'}" for hdu in images)
            raise ReadError(
                f"{path}: the layout names the {channel} stamp {' or '.join(wanted)}, and no extension has "
                f"that name; there are {names}"
            )


def _is_cube(hdu: Hdu, count: int) -> bool:
    shape = () if hdu.data is None else hdu.data.shape
    return len(shape) in (3, 4) and count in (shape[-3], shape[-1])


def _planes(stamps: dict[str, Image | None]) -> Iterator[dict[str, Image | None]]:
    """The candidates of a stack ``(N, H, W)`` per channel, or the one candidate of stamps."""
    shapes = {image.data.shape[:-2] for image in stamps.values() if image is not None}
    if shapes == {()} or len(shapes) != 1 or len(depth := shapes.pop()) != 1:
        yield stamps
        return
    for i in range(depth[0]):
        yield {
            channel: None if image is None else replace(image, data=image.data[i])
            for channel, image in stamps.items()
        }


def _by_tag(images: Sequence[Hdu], least: int = 2) -> dict[str, dict[str, Hdu]]:
    """Candidates whose extensions are named by channel and candidate; empty if these are not `least`.

    Numbers are versions: `_numbered` knows them.
    """
    for pattern in _TAGGED:
        tagged: dict[str, dict[str, Hdu]] = {}
        for hdu in images:
            parts = pattern.fullmatch(hdu.name)
            channel = None if parts is None else channel_of(parts["word"])
            if parts is not None and channel is not None:
                tagged.setdefault(parts["tag"], {})[channel] = hdu
        whole = sum(map(len, tagged.values())) == len(images)
        several = len(tagged) >= least and not all(tag.isdigit() for tag in tagged)
        if (
            whole
            and several
            and all("science" in members and len(members) > 1 for members in tagged.values())
        ):
            return tagged
    return {}


def _numbered(hdu: Hdu) -> Hdu | None:
    """``SCI_2`` as version 2 of ``SCI``; None for any other name."""
    parts = _NUMBERED.fullmatch(hdu.name)
    if parts is None or channel_of(parts[1]) is None:
        return None
    return replace(hdu, name=parts[1], version=int(parts[2]))


def _images(hdus: Sequence[Hdu], members: Mapping[str, Hdu]) -> dict[str, Image | None]:
    return {
        channel: hdu_image(
            hdu, pick(hdus, "mask", channel, hdu.version), pick(hdus, "psf", channel, hdu.version)
        )
        for channel, hdu in members.items()
    }


def _own(members: Mapping[str, Hdu]) -> dict[str, Any]:
    """Keywords of a candidate's own HDUs, the science stamp's first."""
    own: dict[str, Any] = {}
    for channel in reversed(CHANNELS):
        if channel in members:
            own |= members[channel].header
    return {key: value for key, value in own.items() if key not in SCALE_KEYS}


def _declared(hdu: Hdu) -> list[str] | None:
    """The order of planes in a cube's header: ``CHANNELS = 'ref,sci,diff'``, or ``PLANE1 = 'ref'``…"""
    for key, value in hdu.keywords.items():
        if isinstance(value, str) and normalise(key) in ORDER_NAMES:
            return [value]
        if isinstance(value, str) and key[-1:] == "1" and channel_of(value) is not None:
            values = [hdu.keywords.get(f"{key[:-1]}{i + 1}") for i in range(len(CHANNELS))]
            known = [value for value in values if isinstance(value, str) and channel_of(value) is not None]
            if len(known) > 1:
                return known
    return None


def _by_version(channels: Mapping[str, Sequence[Hdu]]) -> Iterator[dict[str, Hdu]]:
    """Candidates of repeated extensions: by EXTVER where it differs, else by their order."""
    if all(len({hdu.version for hdu in members}) == len(members) for members in channels.values()):
        keyed = {channel: {hdu.version: hdu for hdu in members} for channel, members in channels.items()}
    else:
        keyed = {channel: dict(enumerate(members)) for channel, members in channels.items()}
    for key in sorted({key for members in keyed.values() for key in members}):
        yield {channel: members[key] for channel, members in keyed.items() if key in members}


def _cube(path: str, hdu: Hdu, hdus: Sequence[Hdu], layout: Layout) -> list[_Candidate]:
    """One image HDU: a lone science stamp, a triplet, or a stack of triplets."""
    image = hdu_image(hdu, pick(hdus, "mask"), pick(hdus, "psf"))
    if image is None:
        raise ReadError(f"{path}: no pixels")
    order = declared_order(_declared(hdu), layout, path)
    cube, count = image.data, len(order)
    if cube.ndim == 2:
        _refuse_lone(path)
        return [({"science": image}, {})]
    if cube.ndim in (3, 4) and cube.shape[-3] != count and cube.shape[-1] == count:
        cube = np.moveaxis(cube, -1, -3)
    if cube.ndim not in (3, 4) or cube.shape[-3] != count:
        raise ReadError(
            f"{path}: an array of shape {cube.shape} is not a ({count}, H, W) cube of "
            f"{', '.join(order)}; give the order of its channels in a layout"
        )
    stack: npt.NDArray[Any] = cube.reshape(-1, *cube.shape[-3:])
    return [
        (
            {
                channel: replace(image, data=plane, matrix=None)
                for channel, plane in zip(order, planes, strict=True)
            },
            {},
        )
        for planes in stack
    ]


def _table_rows(path: str, hdus: Sequence[Hdu], layout: Layout) -> Iterator[Triplet]:
    """Candidates of a table: a column per stamp, or columns that name the files of the stamps."""
    for hdu in hdus:
        if hdu.rows is None:
            continue
        texts = [name for name in hdu.rows.names if hdu.rows.dtype[name].kind in "SU"]
        if channels := path_columns(texts, layout):
            yield from read_rows(_records(path, hdu), channels, path, layout)
            return
        if match_channels([name for name in hdu.rows.names if name not in texts], layout):
            hints = tuple(str(hdu.keywords.get(key, "")) for key in SHARED_KEYS[:4])
            known = _of_all_rows(hdu, layout)
            for i, record in enumerate(_records(path, hdu)):
                record = {**known, **record}
                yield from_record(record, id=f"{stem(path)}_{i}", source=path, layout=layout, hints=hints)
            return
        if any(len(hdu.rows.dtype[name].shape) == 3 for name in hdu.rows.names):
            yield from read_stack(_columns(path, hdu), layout, path)
            return
    raise ReadError(f"{path}: no image, and no table with a column named like a stamp")


def _of_all_rows(hdu: Hdu, layout: Layout) -> dict[str, float]:
    """Sampling and seeing in a table's header, where no column has them."""
    header = facts(hdu.keywords, hdu.comment)
    known = {
        "PIXSCALE": ("pixel_scale", header.pixel_scale),
        "FWHMPX": ("fwhm", header.fwhm if header.fwhm_arcsec is None else None),
        "FWHM_ARCSEC": ("fwhm_arcsec", header.fwhm_arcsec),
    }
    columns = tuple(hdu.rows.names)
    return {
        name: value
        for name, (role, value) in known.items()
        if value is not None and not match_role(columns, role, layout)
    }


def _records(path: str, hdu: Hdu) -> Iterator[dict[str, Any]]:
    """Rows of a table as column to value."""
    columns = _columns(path, hdu)
    try:
        for i in range(len(hdu.rows)):
            yield {
                name: value.item() if isinstance(value := column[i], np.generic) else value
                for name, column in columns.items()
            }
    except Exception as error:  # astropy converts columns when they are asked for, with errors of any class
        raise ReadError(f"{path}: damaged table: {type(error).__name__}: {error}") from error


def _columns(path: str, hdu: Hdu) -> dict[str, Any]:
    try:
        return {name: hdu.rows.field(name) for name in hdu.rows.names}
    except Exception as error:  # as above
        raise ReadError(f"{path}: damaged table: {type(error).__name__}: {error}") from error
