"""How stamps must look when they enter a network: the input contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from ..errors import ContractError
from ..files.strict_json import fields_of, plain
from ..triplet import CHANNELS

__all__ = ["NORMALISATIONS", "InputContract"]

NORMALISATIONS = ("robust-asinh",)
MISSING_POLICIES = ("refuse", "background")


@dataclass(frozen=True, slots=True)
class InputContract:
    """How triplets must look when they enter the network.

    Parameters
    ----------
    size : int
        Side of the square stamps in pixels; odd, so that one pixel is the centre.
    pixel_scale_arcsec : float
        Pixel scale of the survey that the model was trained on; stamps are not resampled to it.
    fwhm_px : (float, float)
        Seeing that the network knows, in pixels. Stamps with a broader point-spread function are
        shrunk to the upper limit; sharper ones are left as they are.
    missing_reference, missing_difference : {"background", "refuse"}
        What an absent stamp becomes: a stamp at the background level, which the network met in
        training, with a quality flag; or a refusal to score. A candidate with neither of the
        two is always refused.
    normalisation : str
        Name of the normalisation in `preprocess`.
    softening : float
        Noise standard deviations at which the stretch turns from linear to logarithmic.
    channels : tuple of str
        ``("science", "reference", "difference")``, always.

    Raises
    ------
    ContractError
        If a value is out of its range.
    """

    size: int = 63
    pixel_scale_arcsec: float = 1.01
    fwhm_px: tuple[float, float] = (1.2, 5.0)
    missing_reference: str = "background"
    missing_difference: str = "background"
    normalisation: str = "robust-asinh"
    softening: float = 2.0
    channels: tuple[str, ...] = CHANNELS

    def __post_init__(self) -> None:
        object.__setattr__(self, "fwhm_px", tuple(float(v) for v in self.fwhm_px))
        object.__setattr__(self, "channels", tuple(self.channels))
        problems = []
        if not isinstance(self.size, int) or not 15 <= self.size <= 255 or self.size % 2 == 0:
            problems.append(f"size must be an odd integer from 15 to 255, not {self.size!r}")
        if self.channels != CHANNELS:
            problems.append(f"channels must be {list(CHANNELS)}, not {list(self.channels)}")
        if len(self.fwhm_px) != 2 or not 0 < self.fwhm_px[0] < self.fwhm_px[1]:
            problems.append(f"fwhm_px must be an increasing pair, not {self.fwhm_px}")
        if self.normalisation not in NORMALISATIONS:
            problems.append(f"normalisation {self.normalisation!r} is not one of {list(NORMALISATIONS)}")
        problems += [
            f"{name} must be one of {list(MISSING_POLICIES)}, not {getattr(self, name)!r}"
            for name in ("missing_reference", "missing_difference")
            if getattr(self, name) not in MISSING_POLICIES
        ]
        if not self.softening > 0 or not self.pixel_scale_arcsec > 0:
            problems.append("softening and pixel_scale_arcsec must be positive")
        if problems:
            raise ContractError("input contract: " + "; ".join(problems))

    @classmethod
    def from_dict(cls, data: Any, where: str = "input contract") -> Self:
        """Parse and validate; raises `ContractError`."""
        try:
            return cls(**fields_of(cls, data, where))
        except (TypeError, ValueError) as error:
            raise ContractError(f"{where}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values: dict[str, Any] = plain(self)
        return values
