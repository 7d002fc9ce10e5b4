"""The vocabulary of the field: words for stamps and what lies beside them, roles of columns, header keywords.

A name is understood once case, punctuation and words like *cutout*, *stamp* and *image* are set aside:
``cutoutScience``, ``SCI_STAMP``, ``b:cutoutScience_stampData`` and ``x_new.fits`` all say "science". What one
survey or user adds to these words is a `Layout`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

__all__ = [
    "NAME_KEYS",
    "ORDER_NAMES",
    "ROLES",
    "SCALE_KEYS",
    "SHARED_KEYS",
    "STACK_NAMES",
    "UNOBSERVED_PLANES",
    "WORD",
    "channel_of",
    "companion_of",
    "is_companion",
    "is_filler",
    "last_channel_of",
    "listed",
    "normalise",
    "seeing_keys",
    "unit_of_seeing",
    "weak_channel_of",
]

_WORDS = {
    "science": "science|istamp|sstamp|sci|scim|new|search|srch|target|targ|reduced|red|calexp|obs",
    "reference": "reference|rstamp|tstamp|refr|ref|template|templ|tmplt|tmpl|temp|tpl",
    "difference": "difference|dstamp|differential|diff|dif|subtraction|subtracted|sub|scimref|residual|resid"
    "|hotpants|zogy|sfft",
}
# No two of them in a row are a third: names that are long and hostile would be split in every way.
_PLAIN = "cutouts?|stamps?|thumbnails?|thumbs?|postage|images?|img|im|exp|fits|data|array|arr|pixels|pix|hdu"
_FILLER = f"{_PLAIN}|b"
_ONE_CHANNEL = "|".join(
    f"(?P<{channel}>(?:{words})(?:{_FILLER}|{words}){{0,4}})" for channel, words in _WORDS.items()
)
_CHANNEL = re.compile(rf"(?:{_FILLER})*(?:{_ONE_CHANNEL})")
#: A bare "image" is the science stamp if nothing else is.
_WEAK = {"image": "science", "img": "science"}
#: One letter, as in ``thumbnail_d`` or ZOGY's N, R and D, and words that mean another thing elsewhere: they
#: count if the three channels are then complete.
_LAST = re.compile(
    rf"(?:b?(?:{_PLAIN})+)?(?:(?P<science>[ns]|warp|wrp|input|obj|current|curr)"
    r"|(?P<reference>[rt]|stack|stk|coadd|old|tmp|archive|archival)|(?P<difference>d))"
)
#: Planes beside a stamp, by kind: the one list of words for masks.
_COMPANIONS = {
    "mask": "masks?|msk|bpm|badpix(?:els?)?|dq|flags?",
    "psf": "psfs?",
    "other": "unc(?:ert(?:ainty)?)?|var(?:iance)?|err(?:ors?)?|sigma|stddev|noise|rms|weights?|wht|wgt|ivar"
    "|invvar|bkg|background|scorr|snr|scores?|kernel|exptime",
}
_BESIDE = "|".join(_COMPANIONS.values())
_KIND = "|".join(f"(?P<{kind}>{words})" for kind, words in _COMPANIONS.items())
#: ``mask``, ``weightmap``, ``refunc``.
_COMPANION = re.compile(
    rf"(?:{_FILLER}|tick|{'|'.join(_WORDS.values())}){{0,4}}(?:{_KIND})"
    rf"(?:{_FILLER}|{_BESIDE}|maps?|planes?|models?){{0,4}}"
)
#: Words of a name: ``xSci``, ``srch123`` and ``x_sci`` have two.
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

#: Generic names of everything but the stamps, best first; normalised.
ROLES: dict[str, tuple[str, ...]] = {
    "id": ("candid", "candidateid", "diasourceid", "alertid", "candidate", "detectionid", "sourceid", "id"),
    "group": (
        "objectid", "diaobjectid", "objectname", "ssobjectid", "object", "oid", "objid", "transientid",
        "group",
    ),
    "ra": ("ra", "radeg", "raj2000", "alphaj2000", "alphawinj2000", "candra"),
    "dec": ("dec", "decl", "decdeg", "dej2000", "decj2000", "deltaj2000", "deltawinj2000", "canddec"),
    "jd": ("jd", "obsjd", "jdobs"),
    "mjd": ("mjd", "midpointmjdtai", "midpointtai", "mjdobs", "obsmjd", "mjdmid"),
    "magnitude": ("magpsf", "psfmag", "mag", "magnitude", "forcediffimmag", "magap", "magauto"),
    "flux": ("psfflux", "fluxpsf", "flux", "forcediffimflux"),
    "flux_error": ("psffluxerr", "sigmafluxpsf", "fluxpsferr", "fluxerr", "dflux", "forcediffimfluxunc"),
    "snr": ("snr", "scorr", "significance", "sn"),
    "band": ("band", "filter", "filtername", "filt", "fid"),
    "is_positive": ("isdiffpos", "ispositive", "positive"),
    "is_negative": ("isnegative", "negative"),
    "edge_distance": ("mindtoedge", "disttoedge", "edgedistance", "edgedist"),
    "x": ("xpos", "x", "ximage", "xwinimage", "xcentroid"),
    "y": ("ypos", "y", "yimage", "ywinimage", "ycentroid"),
    "pixel_scale": ("pixelscale", "pixscale", "pixscal", "platescale", "secpix"),
    "fwhm": ("fwhmpx", "fwhmpix", "psffwhmpx", "seeingpx", "seeingpix"),
    "fwhm_arcsec": ("fwhmarcsec", "psffwhmarcsec", "seeingarcsec", "fwhmas"),
    "source_fwhm": ("fwhm", "fwhmimage"),
    "instrument": ("telescop", "telescope", "instrume", "instrument"),
    "survey": ("survey", "publisher", "telescop", "telescope", "instrume", "instrument", "origin", "filter"),
}  # fmt: skip

#: Names of arrays of stamps, and of the order of their channels; normalised.
STACK_NAMES = ("triplets", "triplet", "cutouts", "stamps", "images", "data", "x", "arr0")
ORDER_NAMES = ("channels", "channelorder", "channelnames", "order")

#: Keywords that name an image, best first.
NAME_KEYS = ("EXTNAME", "HDUNAME", "STAMP_TYPE", "STAMPTYP", "IMTYPE", "IMAGETYP")
#: Keywords of one header that hold for every candidate of the file.
SHARED_KEYS = (
    "SURVEY", "TELESCOP", "INSTRUME", "ORIGIN", "FILTER", "BAND", "MJD", "MJD-OBS", "JD", "PIXSCALE",
)  # fmt: skip
#: Planes of a Rubin-style bit mask (MP_* keywords give the bits) that mean that a pixel was not observed.
#: Its other planes describe good pixels: detected, saturated, cosmic ray, interpolated.
UNOBSERVED_PLANES = ("MP_BAD", "MP_NO_DATA", "MP_UNMASKEDNAN")
SCALE_KEYS = ("PIXSCALE", "PIXSCAL1", "PIXELSCALE", "PIXELSCL", "PLATESCL", "SECPIX", "SECPIX1", "PSCALE")
"""Keywords of the pixel scale; a WCS outranks them, since it follows binning and resampling."""
#: Keywords of the frame's seeing, best first, and the unit of those whose comment names none.
_FWHM_KEYS = {
    "PSF_FWHM": "px", "PSFFWHM": "px", "FWHM_PX": "px", "FWHMPX": "px", "FWHM_PIX": "px", "MEDFWHM": "px",
    "FWHMMED": "px", "L1FWHM": "arcsec", "FWHM": "px", "SEEING": "arcsec",
}  # fmt: skip
#: Units in the words of comments and keywords.
_ARCSEC = re.compile(r"\barc[ -]?s|\basec\b|\"")
_PIXELS = re.compile(r"\b(?:px|pxl|pix(?:els?)?)\b")
#: What a further keyword says of the seeing that is not the seeing of this image.
_NOT_THE_SEEING = re.compile(r"err|std|rms|sig|dis|ref|te?mp|min|max|num|npix")
#: The seeing as another camera saw it (autoguider, focus or site monitor): it counts where no other is known.
_OTHER_CAMERA = re.compile(r"^ag|guid|foc|dimm")


def seeing_keys(header: Iterable[str]) -> list[str]:
    """Keywords that may give the seeing, best first: those of `_FWHM_KEYS`, then others of the header."""
    others = [key for key in header if ("FWHM" in key or "SEEING" in key) and key not in _FWHM_KEYS]
    return [*_FWHM_KEYS, *sorted(others, key=lambda key: _OTHER_CAMERA.search(key.lower()) is not None)]


def unit_of_seeing(key: str, comment: str) -> str | None:
    """Unit of a keyword with the seeing, ``px`` or ``arcsec``; None if it is not the seeing of this image."""
    usual = _FWHM_KEYS.get(key)
    remark = comment.lower()
    if usual is None:
        if _NOT_THE_SEEING.search(key.lower()):
            return None
        remark = f"{remark} {re.sub(r'[^A-Z0-9]+', ' ', key).lower()}"
    arcsec, pixels = _ARCSEC.search(remark), _PIXELS.search(remark)
    # Of two units the first one is the value's.
    if arcsec and (not pixels or arcsec.start() < pixels.start()):
        return "arcsec"
    return "px" if pixels else usual


@lru_cache(maxsize=16384)
def normalise(name: str) -> str:
    """Lower case, letters and digits only: ``cutoutScience`` and ``CUTOUT_SCIENCE`` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=16384)
def channel_of(name: str) -> str | None:
    """The channel that a name gives by its words alone, or None."""
    found = _CHANNEL.fullmatch(normalise(name))
    return None if found is None else found.lastgroup


@lru_cache(maxsize=16384)
def weak_channel_of(name: str) -> str | None:
    """The channel of a name that means the science stamp if nothing else does: ``image``."""
    return _WEAK.get(normalise(name))


@lru_cache(maxsize=16384)
def last_channel_of(name: str) -> str | None:
    """The channel of a name that counts only if the three channels are then complete."""
    found = _LAST.fullmatch(normalise(name))
    return None if found is None else found.lastgroup


@lru_cache(maxsize=16384)
def is_companion(name: str) -> bool:
    """Whether a name is that of a plane beside a stamp: a mask, a PSF, an uncertainty."""
    return _COMPANION.fullmatch(normalise(name)) is not None


@lru_cache(maxsize=16384)
def companion_of(name: str) -> tuple[str | None, str | None]:
    """Kind of plane that a name with separated words stands for, and the channel that it belongs to.

    Returns
    -------
    kind : {"mask", "psf", "other"} or None
        None for a stamp: ``SCI_AT2024var`` is one, since whole words count.
    channel : str or None
        None where the plane belongs to all channels: ``MASK``, unlike ``REF_MASK`` and ``REFMASK``.
    """
    words = [word for word in re.split(r"[\W_]+", name) if word]
    kinds = [_COMPANION.fullmatch(normalise(word.rstrip("0123456789"))) for word in words]
    for kind, plain in _COMPANIONS.items():
        found = next((match for match in kinds if match is not None and match.lastgroup == kind), None)
        if found is not None:
            rest = [
                re.sub(plain, "", word.lower()) if m else word for word, m in zip(words, kinds, strict=True)
            ]
            return kind, channel_of("".join(rest))
    return None, None


@lru_cache(maxsize=16384)
def is_filler(name: str) -> bool:
    """Whether a name says nothing of which stamp it is: ``stamp``, ``cutout_image``."""
    return re.fullmatch(rf"(?:{_PLAIN})*", normalise(name)) is not None


def listed(names: Sequence[str], aliases: Iterable[str]) -> Iterator[str]:
    """Those of `names` that `aliases` list, whole or as the last part of a dotted name, best first."""
    whole: dict[str, str] = {}
    last: dict[str, str] = {}
    for name in names:
        whole.setdefault(normalise(name), name)
        last.setdefault(normalise(name.rpartition(".")[2]), name)
    for alias in aliases:
        wanted = normalise(alias)
        for known in (whole, last):
            if wanted in known:
                yield known[wanted]
