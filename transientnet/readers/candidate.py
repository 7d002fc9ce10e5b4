"""One candidate from its parts: stamps, and the scalars that the survey sent along."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from ..files.compressed import most_of_a_stamp
from ..triplet import CHANNELS, Triplet
from .image import SCALES, Image, oriented_like, seeing_px, sky_axes
from .layouts import Layout, combined, match_channels, match_roles, recognise
from .stamp import decode_image

__all__ = ["from_images", "from_record", "has_stamps", "refuse_frames"]

_NUMBERS = ("jd", "mjd", "magnitude", "flux", "flux_error", "snr", "source_fwhm")
_DEPTH = 3
#: Side in pixels from which an image file is a full frame: stamps in use are of 30 to some 200 pixels.
_FRAME = 256
#: Rows and columns to add before and behind; empty if none.
_Edges = tuple[()] | tuple[tuple[int, int], tuple[int, int]]
_MJD = 2400000.5
#: Hours or degrees, minutes, seconds.
_ANGLE = re.compile(r"\s*([+-]?\d{1,3})[\s:hd]+(\d{1,2})[\s:m]+(\d{1,2}(?:\.\d*)?)s?\s*")
#: Logarithm of the ratio of two pixel scales that may be of one camera.
_SAME_SAMPLING = 0.2


def from_images(
    images: Mapping[str, Image | None],
    *,
    id: str,
    source: str,
    layout: Layout,
    scalars: Mapping[str, Any] | None = None,
    hints: tuple[str, ...] = (),
) -> Triplet:
    """Put the stamps of one candidate together.

    The reference and difference are brought into the science stamp's orientation where their WCS differ by
    flips and quarter turns, and what was cut off at the edge of the chip is filled with NaN, so that the
    target is at the centre again.

    Parameters
    ----------
    images : mapping of channel to Image or None
    id, source : str
        Name of the candidate if `scalars` has none, and the file that it came from.
    layout : Layout
        Of the user; the survey's own is looked up if it is generic.
    scalars : mapping
        Names and values of everything else: record fields, header keywords, columns.
    hints : tuple of str
        Further texts that may name the survey.

    Raises
    ------
    ReadError
        There is no science stamp, or one is too large.
    """
    roles = _Roles(scalars or {}, layout)
    return _assemble(images, roles, id, source, layout, hints, most_of_a_stamp())


def refuse_frames(images: Mapping[str, Image | None], layout: Layout, source: str) -> None:
    """Refuse image files that hold full frames: only the middle would be scored, where nothing need be.

    Packets and stacks are not asked: they hold stamps whatever their size, such as those of long trails.

    Parameters
    ----------
    images : mapping of channel to Image or None
    layout : Layout
        Its `stamp_size` vouches for stamps up to that size.
    source : str
        The file, for the message.

    Raises
    ------
    ReadError
        An image is a full frame.
    """
    for channel, image in images.items():
        if image is None or min(image.data.shape) < max(_FRAME, (layout.stamp_size or 0) + 1):
            continue
        height, width = image.data.shape
        raise ReadError(
            f"{source}: a full frame by its size, {width} x {height} pixels ({channel}): cut stamps around "
            "the candidates with `transientnet cut` (cut_triplets in Python); if it is a stamp with the "
            f"candidate at its centre, a layout with stamp_size = {max(height, width)} says so"
        )


def _assemble(
    images: Mapping[str, Image | None],
    roles: _Roles,
    id: str,
    source: str,
    layout: Layout,
    hints: tuple[str, ...],
    limit: int,
) -> Triplet:
    science = images.get("science")
    if science is None:
        present = [channel for channel in CHANNELS if images.get(channel) is not None]
        raise ReadError(
            f"{source}: candidate {id} has no science stamp ({', '.join(present) or 'no stamp'} only)"
        )
    most = limit // 8
    for channel, image in images.items():
        if image is not None and image.data.size > most:
            raise ReadError(
                f"{source}: the {channel} stamp of {id} has {image.data.size} pixels, more than the limit of "
                f"{most}: cut stamps from frames with `transientnet cut`, or raise TRANSIENTNET_MEMORY"
            )
    scalars = roles.scalars
    group = roles.text("group")
    sampled = next((i.pixel_scale for i in images.values() if i and i.pixel_scale is not None), None)
    scale = _plausible(roles.number("pixel_scale")) or sampled
    survey = layout if layout.name else _survey(roles, hints, (group or "", id), scale) or layout
    if survey is not layout:
        roles = _Roles(scalars, combined(layout, survey))
        scale = _plausible(roles.number("pixel_scale")) or sampled
    meta = {"source": source, **_axes(science, scalars), **(_meta(roles, survey) if scalars else {})}
    if survey.name:
        meta["survey"] = survey.name
    stamps = {c: None if (i := images.get(c)) is None else oriented_like(i, science.matrix) for c in CHANNELS}
    fwhm, arcsec = _seeing(images, roles, scale if scale is not None else survey.pixel_scale)
    if arcsec is not None:
        # A pixel scale that is known better converts it again.
        meta["fwhm_arcsec"] = arcsec
    for name, own, usual in (("pixel_scale", scale, survey.pixel_scale), ("fwhm", fwhm, survey.fwhm)):
        if own is not None or usual is not None:
            meta[f"{name}_from"] = "file" if own is not None else "survey"
    if meta.get("source_fwhm") in (science.fwhm, science.fwhm_arcsec):
        # A header's FWHM is the seeing.
        meta.pop("source_fwhm", None)
    edges = _cut_off(science.data.shape, roles, survey)
    if edges is None:
        meta["truncated"] = True
    shape = science.data.shape
    reference, difference = (
        None if (image := stamps[channel]) is None else _padded(image, edges, shape)
        for channel in CHANNELS[1:]
    )
    return Triplet(
        _padded(science, edges, shape),
        reference,
        difference,
        id=roles.text("id") or id,
        pixel_scale=scale if scale is not None else survey.pixel_scale,
        fwhm=fwhm if fwhm is not None else survey.fwhm,
        group=group,
        meta=meta,
    )


def _axes(science: Image, scalars: Mapping[str, Any]) -> dict[str, float]:
    """North and east in the science stamp, unless the WCS is of other axes than RA and Dec."""
    equatorial = str(scalars.get("CTYPE1", "RA")).startswith("RA")
    return sky_axes(science.matrix) if equatorial else {}


def _survey(
    roles: _Roles, hints: tuple[str, ...], names: tuple[str, ...], scale: float | None
) -> Layout | None:
    """The survey that took the stamps.

    An object is named after the survey that discovered it, but other telescopes observe it too: its name
    counts only where nothing names an instrument, and the sampling is not another one.
    """
    by_instrument = recognise((*hints, *roles.texts("survey")))
    if by_instrument is not None or roles.texts("instrument"):
        return by_instrument
    named = recognise(names)
    usual = None if named is None else named.pixel_scale
    if scale is not None and usual is not None and abs(math.log(scale / usual)) > _SAME_SAMPLING:
        return None
    return named


def _seeing(
    images: Mapping[str, Image | None], roles: _Roles, scale: float | None
) -> tuple[float | None, float | None]:
    """FWHM in pixels, and in arcseconds if it is given so; the reference is of another night."""
    fwhm = roles.number("fwhm")
    if fwhm:
        return fwhm, None
    arcsec = roles.number("fwhm_arcsec")
    if arcsec is None:
        own = (image for channel in ("science", "difference") if (image := images.get(channel)) is not None)
        for width, angle in map(Image.seeing, own):
            arcsec = angle if arcsec is None else arcsec
            if width is not None and angle is None:
                return width, None
            if width is not None:
                break
    return seeing_px(arcsec, scale), arcsec


def _plausible(scale: float | None) -> float | None:
    return scale if scale is not None and SCALES[0] < scale < SCALES[1] else None


def _padded(image: Image, edges: _Edges | None, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if not edges or image.data.shape != shape:
        return image.data
    dtype = np.result_type(image.data.dtype.newbyteorder("="), np.float32)
    return np.pad(np.asarray(image.data, dtype=dtype), edges, constant_values=np.nan)


def from_record(
    record: Mapping[str, Any], *, id: str, source: str, layout: Layout, hints: tuple[str, ...] = ()
) -> Triplet:
    """A candidate from a record of a packet or a row of a table.

    Parameters
    ----------
    record : mapping
        Field to value; nested records are searched, lists (histories) are not. Cutouts are bytes, arrays,
        or nested lists of numbers.
    id, source, layout, hints
        As in `from_images`.

    Returns
    -------
    Triplet
        `Triplet.unreadable` when a cutout cannot be decoded or the science stamp is absent.
    """
    scalars: dict[str, Any] = {}
    bulky: dict[str, Any] = {}
    _flatten(record, "", 0, scalars, bulky)
    roles = _Roles(scalars, layout)
    id = roles.text("id") or id
    names = _channels(tuple(bulky), layout)
    try:
        if not names:
            raise ReadError(
                f"{source}: no field of the record is named like a science, reference or difference cutout "
                f"(it has {', '.join(list(record)[:12])}); name them in a layout"
            )
        limit = most_of_a_stamp()
        images = {channel: _image(bulky[name], channel, limit) for channel, name in names.items()}
        return _assemble(images, roles, id, source, layout, hints, limit)
    except ReadError as error:
        return Triplet.unreadable(id, source, str(error))


def has_stamps(record: Mapping[str, Any], layout: Layout) -> bool:
    """Whether a field of a record, as `from_record` takes it, is named like a cutout and is not null."""
    bulky: dict[str, Any] = {}
    _flatten(record, "", 0, {}, bulky)
    return any(bulky[name] is not None for name in _channels(tuple(bulky), layout).values())


@lru_cache(maxsize=256)
def _channels(names: tuple[str, ...], layout: Layout) -> dict[str, str]:
    return match_channels(names, layout)


@lru_cache(maxsize=4096)
def _joined(prefix: str, key: str) -> str:
    """One string per name: its hash is known from the record before."""
    return f"{prefix}{key}"


def _flatten(
    record: Mapping[str, Any], prefix: str, depth: int, scalars: dict[str, Any], bulky: dict[str, Any]
) -> None:
    for key, value in record.items():
        name = _joined(prefix, key) if prefix else key
        if isinstance(value, (str, float, int)):
            scalars[name] = value
        elif value is None:
            scalars[name] = bulky[name] = None
        elif isinstance(value, (bytes, bytearray, memoryview, list, np.ndarray)):
            bulky[name] = value
        elif isinstance(value, (dict, Mapping)):
            if depth < _DEPTH:
                _flatten(value, f"{name}.", depth + 1, scalars, bulky)
        else:
            scalars[name] = value


def _image(value: Any, channel: str, limit: int) -> Image | None:
    if value is None or (isinstance(value, (bytes, bytearray, list)) and len(value) == 0):
        return None
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return decode_image(bytes(value), limit)
        array = np.asarray(value)
    except ReadError as error:
        raise ReadError(f"{channel} cutout: {error}") from error
    except (ValueError, TypeError) as error:
        raise ReadError(f"{channel} cutout: not a rectangular array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise ReadError(f"{channel} cutout: {array.dtype} is not a number")
    side = math.isqrt(array.size)
    if array.ndim == 1 and side * side == array.size:
        array = array.reshape(side, side)
    if array.ndim != 2:
        raise ReadError(f"{channel} cutout: shape {array.shape} is not (H, W), nor square when flattened")
    return Image(array)


class _Roles:
    """Values of a record by what they mean."""

    def __init__(self, scalars: Mapping[str, Any], layout: Layout) -> None:
        self.scalars = scalars
        self._names = match_roles(tuple(scalars), layout)

    def value(self, role: str) -> Any:
        """First value of `role` that is not null, None if there is none."""
        for name in self._names.get(role, ()):
            value = self.scalars[name]
            if value is not None and value != "":
                return value
        return None

    def number(self, role: str) -> float | None:
        """The value if it is a finite number and no sentinel (-99, -999, 1e30…)."""
        value = self.value(role) if role in self._names else None
        if value is None or isinstance(value, bool):
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) and abs(number) < 1e30 and number not in _SENTINELS else None

    def text(self, role: str) -> str | None:
        """The value as text; zero means no name (LSST writes it for "none")."""
        value = self.value(role)
        if value is None or (isinstance(value, float) and not value.is_integer()):
            return None
        if isinstance(value, float):
            value = int(value)
        return str(value).strip() or None if value != 0 else None

    def texts(self, role: str) -> list[str]:
        """Every text of `role`."""
        return [v for name in self._names.get(role, ()) if isinstance(v := self.scalars[name], str)]


_SENTINELS = (-99.0, -999.0, -9999.0)


def _meta(roles: _Roles, survey: Layout) -> dict[str, Any]:
    meta: dict[str, Any] = {name: v for name in _NUMBERS if (v := roles.number(name)) is not None}
    # Packets and headers count pixels from 1, the score table from 0.
    meta |= {name: v - 1 for name in ("x", "y") if (v := roles.number(name)) is not None}
    for name, unit in (("ra", 15.0), ("dec", 1.0)):
        degrees = roles.number(name)
        if degrees is None:
            degrees = _sexagesimal(roles.text(name), unit)
        if degrees is not None:
            meta[name] = degrees
    if "mjd" in meta:
        meta.setdefault("jd", meta["mjd"] + _MJD)
        del meta["mjd"]
    flux, error = meta.get("flux"), meta.pop("flux_error", None)
    if flux is not None and error is not None and error > 0:
        meta.setdefault("snr", flux / error)
    if flux and survey.zero_point is not None:
        # Of a source that became fainter, as ZTF does it: how bright the change is.
        meta.setdefault("magnitude", survey.zero_point - 2.5 * math.log10(abs(flux)))
    band = roles.value("band")
    if band is not None:
        meta["band"] = survey.bands.get(str(band), str(band))
    positive = _truth(roles.value("is_positive"))
    if positive is None:
        negative = _truth(roles.value("is_negative"))
        if negative is not None:
            positive = not negative
        elif flux is not None:
            positive = flux >= 0
    if positive is not None:
        meta["is_positive"] = positive
    return meta


def _sexagesimal(text: str | None, unit: float) -> float | None:
    """Degrees of ``12:34:56.7`` in units of so many degrees, as headers of frames have positions."""
    parts = None if text is None else _ANGLE.fullmatch(text)
    if parts is None:
        return None
    whole, minutes, seconds = (abs(float(part)) for part in parts.groups())
    degrees = unit * (whole + minutes / 60 + seconds / 3600)
    return -degrees if parts[1].startswith("-") else degrees


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return _WORDS_OF_TRUTH.get(value.strip().lower())
    return bool(value > 0) if isinstance(value, (int, float)) else None


_WORDS_OF_TRUTH = {
    **dict.fromkeys(("t", "true", "1", "+", "y", "yes", "p", "pos", "positive"), True),
    **dict.fromkeys(("f", "false", "0", "-1", "-", "n", "no", "neg", "negative"), False),
}


def _cut_off(shape: tuple[int, ...], roles: _Roles, survey: Layout) -> _Edges | None:
    """What to pad (rows, columns) so that the target is at the centre; None if that cannot be known.

    A stamp smaller than the survey's own, or longer one way than the other, was cut at the edge of the
    chip. The side follows from the position on the chip: nearer to the origin than half a stamp is a cut
    on the low side. Without the survey's size a rectangle may be meant so: then it counts as cut only when
    position or distance to the edge agree with the missing pixels. As many rows as columns are missing where
    somebody cropped a stamp about its centre: it counts as cut at a corner only if the distance agrees.
    """
    size = survey.stamp_size or max(shape)
    missing = [size - n for n in shape]
    if not any(missing) or min(missing) < 0:
        return ()
    half = size // 2
    edge = roles.number("edge_distance")
    cropped = missing[0] == missing[1]
    padding = []
    for role, lacking in zip(("y", "x"), missing, strict=True):
        position = roles.number(role)
        if lacking == 0:
            padding.append((0, 0))
            continue
        if position is None:
            return () if cropped and survey.stamp_size else None
        below = half - (round(position) - 1)
        at_edge = edge is not None and abs(half - edge - lacking) <= 1
        if below > 0 and abs(below - lacking) <= 1:
            padding.append((lacking, 0))
        elif below <= 0 and (at_edge or (survey.stamp_size and not cropped)):
            padding.append((0, lacking))
        else:
            return () if cropped else None
    return (padding[0], padding[1])
