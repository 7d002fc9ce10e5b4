"""A telescope as the simulator sees it: sampling, optics, detector, survey depth and pipeline habits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["DECAM_LIKE", "ZTF_LIKE", "Telescope"]

_LIKE_ZTF = 0.2


@dataclass(frozen=True, slots=True)
class Telescope:
    """Everything that the triplets of one survey have in common.

    Fluxes inside the simulator are in units of the science sky noise per pixel; `unit` and
    `background` turn them into the raw numbers of the stamps.

    Parameters
    ----------
    pixel_scale : float
        arcsec per pixel.
    size : int
        Side of the stamps in pixels, odd or even.
    fwhm, reference_fwhm : float
        Median seeing of the science and reference images in pixels.
    seeing_scatter : float
        Standard deviation of the natural logarithm of the science seeing.
    beta, ellipticity : float
        Moffat index and typical ellipticity of the point-spread function.
    tracking : float
        Typical length of tracking trails, in FWHM.
    defocus : float
        Radius of the defocus annulus, in FWHM; 0 in focus.
    science_tracking, science_defocus : float
        The same of the science exposures alone, to be compared with a reference that has neither.
    spikes, spike_angle, spike_flux
        Number of diffraction arms, angle of the first one in rad, share of the flux in them.
    sky, read_noise, full_well : float
        Electrons per pixel: sky level, read noise, saturation.
    reference_noise : float
        Sky noise of the reference over that of the science image.
    science_smoothing, reference_smoothing : float
        Weight of the neighbours when the images were resampled: correlated noise.
    stars : float
        Stars per pixel brighter than five times the noise of the reference.
    registration, kernel_error, shape_error, colour_error : float
        Accuracy of the subtraction: misregistration in px, relative error of the kernel's width, share of
        the science point-spread function that the kernel takes for a round one, relative flux error from
        star to star.
    ringing : float
        How much the difference is sharpened beyond the seeing: bright sources get negative rings.
    comb : float
        How much the lines of the difference alternate in the core of bright, undersampled sources.
    method : str
        ``"kernel"`` (Alard & Lupton 1998, ApJ 503, 325) or ``"zogy"`` (Zackay et al. 2016, ApJ 830, 27).
    centring : float
        How far from the detection stamps are cut, standard deviation in FWHM.
    masks_saturation : bool
        Whether the pipeline masks saturated stars of the field with NaN boxes.
    saturated_core : {"clip", "interpolate", "dark"}
        What saturated pixels hold: the full well, what is interpolated from beside them, or less than their
        neighbours where the counter overflowed.
    blanks_core : bool
        Whether the difference is zero where science or reference is saturated.
    fill : float
        What unobserved pixels hold: NaN, 0 or a constant.
    stripes : float
        Amplitude of the column pattern of the readout, in units of the sky noise.
    unit, background : float
        Raw counts per unit of sky noise, and the raw sky level left in science and reference.
    """

    pixel_scale: float
    size: int
    fwhm: float
    reference_fwhm: float
    seeing_scatter: float = 0.2
    beta: float = 3.5
    ellipticity: float = 0.06
    tracking: float = 0.0
    defocus: float = 0.0
    science_tracking: float = 0.0
    science_defocus: float = 0.0
    spikes: int = 4
    spike_angle: float = 0.0
    spike_flux: float = 0.01
    sky: float = 500.0
    read_noise: float = 8.0
    full_well: float = 1e5
    reference_noise: float = 0.4
    science_smoothing: float = 0.0
    reference_smoothing: float = 0.2
    stars: float = 0.004
    registration: float = 0.06
    kernel_error: float = 0.03
    shape_error: float = 0.0
    colour_error: float = 0.01
    ringing: float = 0.0
    comb: float = 0.0
    method: str = "zogy"
    centring: float = 0.0
    masks_saturation: bool = True
    saturated_core: str = "clip"
    blanks_core: bool = False
    fill: float = float("nan")
    stripes: float = 0.0
    unit: float = 5.0
    background: float = 100.0

    @property
    def gain(self) -> float:
        """Electrons per unit of flux (the unit is the science sky noise per pixel)."""
        return float(np.sqrt(self.sky + self.read_noise**2))

    @property
    def saturation(self) -> float:
        """Flux per pixel at which the detector saturates."""
        return self.full_well / self.gain

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Telescope:
        """A telescope at random: 0.15–9″/px, FWHM 1.2–10 px, stamps of 25–101 px; one in five like ZTF."""
        if rng.random() < _LIKE_ZTF:
            return replace(
                ZTF_LIKE,
                fwhm=ZTF_LIKE.fwhm * float(np.exp(rng.normal(0, 0.15))),
                beta=float(rng.uniform(2.5, 4.0)),
                sky=ZTF_LIKE.sky * float(np.exp(rng.normal(0, 0.7))),
                full_well=float(rng.uniform(4e4, 1e5)),
                stars=ZTF_LIKE.stars * float(np.exp(rng.normal(0.3, 1.0))),
                registration=float(rng.uniform(0.03, 0.15)),
                kernel_error=float(rng.uniform(0.02, 0.06)),
                ringing=float(rng.uniform(0.0, 1.0)),
                comb=float(rng.exponential(0.6)),
                saturated_core=str(rng.choice(["clip", "interpolate", "dark"])),
                unit=float(np.exp(rng.uniform(np.log(2), np.log(20)))),
            )
        large = rng.random() < 0.3
        if large:
            # Large telescopes sample the seeing well, cut small stamps and subtract a sharper reference.
            scale = float(np.exp(rng.uniform(np.log(0.15), np.log(0.3))))
            fwhm = float(np.clip(np.exp(rng.normal(np.log(1.15), 0.35)) / scale, 3.0, 10.0))
            reference_fwhm = fwhm * float(np.exp(-rng.uniform(0.0, 0.7)))
            size = int(rng.choice([25, 30, 31, 33, 36, 41, 45, 51, 63]))
        else:
            scale = float(np.exp(rng.uniform(np.log(0.2), np.log(9.0)))) if rng.random() < 0.7 else 1.0
            # Seeing of 0.7–4″ as sampled by the pixels; the optics of coarse pixels give 1.2–3 px.
            fwhm = float(np.clip(np.exp(rng.normal(np.log(1.8), 0.4)) / scale, 1.35, 8.0))
            fwhm = float(np.clip(fwhm * np.exp(rng.normal(0.0, 0.25)), 1.2, 8.0))
            reference_fwhm = fwhm * float(np.exp(rng.normal(-0.05, 0.2)))
            size = int(rng.choice([25, 31, 35, 41, 48, 51, 61, 63, 63, 63, 64, 71, 81, 101]))
        size = max(size, int(3.2 * fwhm))
        crowded = rng.random() < 0.25
        # Exposures out of focus or trailed beside a good reference.
        spoilt = rng.random() < (0.35 if large else 0.15)
        return cls(
            pixel_scale=scale,
            size=size,
            fwhm=fwhm,
            reference_fwhm=float(np.clip(reference_fwhm, 1.2, 9.0)),
            seeing_scatter=float(rng.uniform(0.08, 0.28)),
            beta=float(rng.uniform(2.5, 5.0)),
            ellipticity=float(rng.exponential(0.06)),
            tracking=float(rng.exponential(0.5)) if rng.random() < 0.12 else 0.0,
            defocus=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.06 else 0.0,
            science_tracking=float(rng.uniform(0.2, 1.5)) if spoilt and rng.random() < 0.6 else 0.0,
            science_defocus=float(rng.uniform(0.3, 1.2)) if spoilt and rng.random() < 0.5 else 0.0,
            spikes=int(rng.choice([2, 4, 4, 6])),
            spike_angle=float(rng.uniform(0, np.pi)) if rng.random() < 0.5 else 0.0,
            spike_flux=float(rng.exponential(0.012)),
            sky=float(np.exp(rng.uniform(np.log(30), np.log(2e4)))),
            read_noise=float(rng.uniform(2, 15)),
            full_well=float(rng.uniform(4e4, 2e5)),
            reference_noise=float(np.exp(rng.uniform(np.log(0.12), np.log(1.1)))),
            science_smoothing=float(rng.uniform(0.05, 0.6)) if rng.random() < 0.5 else 0.0,
            reference_smoothing=float(rng.uniform(0.0, 0.6)),
            stars=float(np.exp(rng.normal(np.log(0.012 if crowded else 0.0025), 0.8)))
            * (0.3 if large else 1),
            registration=float(rng.uniform(0.02, 0.12)) * (1.3 if large else 1.0),
            kernel_error=float(rng.uniform(0.01, 0.06)),
            shape_error=float(rng.exponential(0.12)) if rng.random() < 0.5 else 0.0,
            colour_error=float(rng.uniform(0.002, 0.02)),
            ringing=float(rng.uniform(0.1, 1.2)) if rng.random() < 0.35 else 0.0,
            comb=float(rng.exponential(0.6)) if fwhm < 3 and rng.random() < 0.3 else 0.0,
            method=str(rng.choice(["zogy", "kernel"], p=[0.2, 0.8] if large else [0.55, 0.45])),
            centring=float(rng.uniform(0.05, 0.3)) if rng.random() < 0.3 else 0.0,
            masks_saturation=bool(rng.random() < 0.4),
            saturated_core=str(rng.choice(["clip", "interpolate", "dark"], p=[0.55, 0.25, 0.2])),
            blanks_core=bool(rng.random() < 0.1),
            fill=float(rng.choice([np.nan, 0.0, rng.normal(0, 20)], p=[0.5, 0.3, 0.2])),
            stripes=float(rng.exponential(0.15)) if rng.random() < 0.3 else 0.0,
            unit=float(np.exp(rng.uniform(np.log(0.05), np.log(50)))),
            background=float(rng.normal(0, 1) if rng.random() < 0.5 else rng.uniform(0, 3000)),
        )


ZTF_LIKE = Telescope(
    pixel_scale=1.01, size=63, fwhm=2.05, reference_fwhm=2.0, seeing_scatter=0.22, beta=3.2, spike_flux=0.012,
    sky=250.0, read_noise=9.0, full_well=6e4, reference_noise=0.24, reference_smoothing=0.17, stars=0.0028,
    stripes=0.12, unit=7.0, background=150.0,
)  # fmt: skip
"""The 1.2-m Zwicky Transient Facility: 1.01″/px, undersampled in good seeing, ZOGY differences."""

DECAM_LIKE = Telescope(
    pixel_scale=0.263, size=51, fwhm=4.0, reference_fwhm=3.8, seeing_scatter=0.15, beta=3.5, spike_flux=0.004,
    sky=2000.0, read_noise=7.0, full_well=1.5e5, reference_noise=0.6, science_smoothing=0.1,
    reference_smoothing=0.3, stars=0.0012, method="kernel", masks_saturation=False, fill=0.0,
    unit=15.0, background=0.0,
)  # fmt: skip
"""The 4-m Blanco's Dark Energy Camera: 0.263″/px, well-sampled, kernel-matched differences."""
