"""Variations of normalised stamps that another night, seeing or pipeline could have made.

The network does not change its answer under turns and flips, so those need no variation. All of it
works on the network's own tensor: undoing the inverse hyperbolic sine gives fluxes in units of the
noise, where shifts, blurs and noise are what they are on the sky.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Augmentation"]

# Beyond this the flux (sinh of it) has more digits than a bilinear shift in float32 keeps.
_BRIGHTEST = 10.0


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far stamps are varied.

    Attributes
    ----------
    shift : float
        Largest offset of the target along each axis, pixels, the same in all three stamps.
    blur : float
        Largest share of a 3x3 box in the kernel that broadens the seeing; half of the stamps.
    noise : float
        Largest standard deviation of added noise, in units of the stamp's own; half of the stamps.
    drop : float
        Probability that reference or difference is absent.
    softening : float
        Of the normalisation, see `InputContract`.
    """

    shift: float = 1.0
    blur: float = 0.5
    noise: float = 0.7
    drop: float = 0.0
    softening: float = 2.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Vary a batch (N, 3, S, S); every number is drawn from `generator`, on the CPU."""
        n, size, device = len(x), x.shape[-1], x.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(device)

        def sometimes(strength: float) -> Tensor:
            return strength * uniform(n, 1, 1, 1) * (uniform(n, 1, 1, 1) < 0.5)

        seen = x != 0
        flux = torch.sinh(x.clamp(-_BRIGHTEST, _BRIGHTEST))
        if self.shift:
            affine = torch.zeros(n, 2, 3, device=device)
            affine[:, 0, 0] = affine[:, 1, 1] = 1.0
            affine[:, :, 2] = (2 * uniform(n, 2) - 1) * self.shift * 2 / (size - 1)
            grid = F.affine_grid(affine, list(x.shape), align_corners=True)
            flux = F.grid_sample(flux, grid, align_corners=True)
        if self.blur:
            share = sometimes(self.blur)
            some = torch.nonzero(share.flatten()).flatten()
            sharp = flux[some]
            flux[some] = torch.lerp(
                sharp, F.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False), share[some].expand_as(sharp)
            )
        if self.noise:
            sigma = sometimes(self.noise)
            normal = torch.randn(x.shape, generator=generator).to(device)
            flux = (flux + sigma / self.softening * normal * seen) / torch.sqrt(1 + sigma**2)
        x = _asinh(flux)
        if self.drop:
            lost = torch.zeros(n, 3, 1, 1, device=device)
            lost.scatter_(
                1, 1 + (uniform(n, 1, 1, 1) < 0.5).long(), (uniform(n, 1, 1, 1) < self.drop).float()
            )
            x = x * (1 - lost)
        return x


def _asinh(x: Tensor) -> Tensor:
    """`torch.asinh`, which is one of the slowest functions on the CPU, from fast ones; to 1e-7."""
    size = x.abs()
    return torch.copysign(torch.log(size + torch.sqrt(size * size + 1)), x)
