"""A Mach-Zehnder interferometer, aligned by the four screws of its two mirrors.

A laser beam (wavelength 635 nm) is split. Beam 1 goes straight to the camera; beam 2 is sent round
by mirror 1, a = 200 mm aside, and mirror 2, c = 100 mm before the camera, each tilted by two
screws. Where both beams meet in the same place and direction, moving one path by a wavelength makes
the whole image bright and dark; the visibility of these fringes is maximized.

Coordinates in mm; the camera lies in the plane z = 0, 3.57 wide, 64 x 64 pixels. A mirror with
screws (s_x, s_y) has, before it is turned into place, the normal
(-s_x / sqrt(1 + s_x^2), -s_y / sqrt(1 + s_y^2), .) with s = 2.6e-3 (mirror 1) or 1.3e-3 (mirror 2)
times the parameter. Beam 2 starts at (0, -a, -c - 700) along z and is reflected at both; beam 1
comes along z through (0, 0, -c). Beam 1 is a plane wave of amplitude exp(-r^2 / R^2), R = 0.714;
beam 2 has passed lenses and has radius 0.73393, amplitude R / 0.73393 on its axis, and wave fronts
of curvature radius 11,202. With intensity I = a1^2 + a2^2 + 2 a1 a2 cos(phase), each of 16 frames
(12 with the phase moved once around, 4 back) is stored in 8 bits as floor(255 min(I / 4, 1)). With
S_t the sum of frame t weighted towards the middle of the image,

    visibility = (max_t S_t - min_t S_t) / (max_t S_t + min_t S_t).

An observation has a random phase of its own, and every pixel of each beam is dimmed by a random
factor uniform on [0.8, 1]; the true metric has phase 0 and the factor 0.9.

Almost everywhere the visibility is next to nothing: the optimum is a needle. Aligned screws are 0,
the centre of the box; `shifted` moves them to a place drawn by `shift_seed`, uniform on the inner
four fifths of the box.

Source: Sorokin et al. 2020, NeurIPS, arXiv 2006.02252 (the instrument); Li, Rudner and Wilson 2024,
ICLR, arXiv 2305.20028 (as a problem).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, flag, integer
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem

WAVELENGTH = 6.35e-4  # mm, as all lengths
ASIDE, BEFORE, CAMERA_DISTANCE = 200.0, 700.0, 100.0
RADIUS_1, RADIUS_2, CURVATURE = 0.714, 0.73393, 11_202.0
FAR, NEAR = 2.6e-3, 1.3e-3  # tilt of mirrors 1 and 2 a unit of their screws
CAMERA, PIXELS = 3.57, 64
FORTH, BACK = 12, 4  # frames
DIMMING = 0.2  # largest
SHIFT_RANGE = 0.8
BLOCK = 64  # points whose frames are held in memory together


@dataclass(frozen=True)
class InterferometerConfig(Config):
    """Options of `interferometer`.

    Attributes:
        shifted: Whether the aligned position is moved off the centre of the box.
        shift_seed: Where to.
        noise: Whether observations have random phases and dimmed pixels.
    """

    shifted: bool = flag(True)
    shift_seed: int = integer(0, 0, 2**31 - 1)
    noise: bool = flag(True)


class Interferometer(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = InterferometerConfig
    shift: Tensor

    def __init__(self, config: InterferometerConfig | None = None, *, negate: bool = False) -> None:
        config = config or InterferometerConfig()
        shift = torch.zeros(4, dtype=torch.float64)
        if config.shifted:
            generator = torch.Generator().manual_seed(config.shift_seed)
            shift = SHIFT_RANGE * (2 * torch.rand(4, generator=generator, dtype=torch.float64) - 1)
        aligned = frames_visibility(torch.zeros(1, 4, dtype=torch.float64)).item()
        super().__init__(
            Space(
                [
                    Float(f"mirror_{mirror}_{axis}", -1.0, 1.0)
                    for mirror in (1, 2)
                    for axis in ("x", "y")
                ]
            ),
            [Objective("visibility", "maximize")],
            config=config,
            optimum=Optimum(aligned, (tuple(shift.tolist()),), "aligned beams", proven=False),
            negate=negate,
        )
        self.register_buffer("shift", shift)

    def _true_metrics(self, X: Tensor) -> Tensor:
        return frames_visibility(X - self.shift.to(X)).unsqueeze(-1)

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        options: Any = self.config
        if not options.noise:
            return self._true_metrics(X)
        drawn = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        return frames_visibility(X - self.shift.to(X), drawn).unsqueeze(-1)


def frames_visibility(screws: Tensor, seed: int | None = None) -> Tensor:
    """Visibility at screw positions.

    Args:
        screws: `... x 4`: x and y of mirror 1, then of mirror 2.
        seed: Of the phases and the dimming, drawn for each point; None for neither.

    Returns:
        `...` values in [0, 1].
    """
    rows = screws.reshape(-1, 4)
    values = [
        _visibility(block, None if seed is None else derive_seed(seed, "block", i))
        for i, block in enumerate(rows.split(BLOCK))
    ]
    return (torch.cat(values) if values else rows[:, 0]).reshape(screws.shape[:-1])


def _visibility(screws: Tensor, seed: int | None) -> Tensor:
    n = len(screws)
    step = (torch.arange(PIXELS).to(screws) / PIXELS - 0.5) * CAMERA
    x, y = torch.meshgrid(step, step, indexing="ij")
    amplitude_1 = (-(x.square() + y.square()) / RADIUS_1**2).exp()
    along, across = _second_beam(screws, x, y)
    amplitude_2 = RADIUS_1 / RADIUS_2 * (-across / RADIUS_2**2).exp()
    # Beam 1 has one phase all over the camera. The path is some 10^6 wavelengths: reduced before
    # its cosine is taken, relative to the middle of the image, whose phase the frames go through.
    path = along - along[:, PIXELS // 2, PIXELS // 2].reshape(-1, 1, 1)
    phase = 2 * math.pi / WAVELENGTH * (path + across / (2 * CURVATURE))
    if seed is None:
        dim_1 = dim_2 = torch.full((n, 1, 1, 1), 1 - DIMMING / 2).to(screws)
        start = torch.zeros(n, 2).to(screws)
    else:
        generator = torch.Generator().manual_seed(seed)
        # Drawn for each point by itself, so that it does not matter which are asked with it.
        draws = [
            torch.rand(2 * PIXELS**2 + 2, generator=generator, dtype=torch.float64)
            for _ in range(n)
        ]
        drawn = torch.stack(draws).to(screws)
        start = 2 * math.pi * drawn[:, :2]
        dims = 1 - DIMMING * drawn[:, 2:].reshape(n, 2, 1, PIXELS, PIXELS)
        dim_1, dim_2 = dims[:, 0], dims[:, 1]
    forth = start[:, :1] + 2 * math.pi / FORTH * torch.arange(FORTH).to(screws)
    back = start[:, 1:] + 2 * math.pi * (1 - torch.arange(BACK).to(screws) / BACK)
    moved = torch.cat([forth, back], dim=1).reshape(n, -1, 1, 1)
    a1, a2 = dim_1 * amplitude_1, dim_2 * amplitude_2.unsqueeze(1)
    intensity = a1.square() + a2.square() + 2 * a1 * a2 * (phase.unsqueeze(1) + moved).cos()
    frames = (255 * (intensity / 4).clamp_max(1.0)).floor()
    unit = torch.arange(PIXELS).to(screws) / PIXELS - 0.5
    weights = (-(unit.unsqueeze(1).square() + unit.square()) / 0.95**2).exp()
    sums = (frames * weights).sum(dim=(-1, -2))
    brightest, darkest = sums.amax(dim=1), sums.amin(dim=1)
    return (brightest - darkest) / (brightest + darkest)


def _second_beam(screws: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of beam 2 at each pixel: the way along its axis, and the squared distance from it."""
    n = len(screws)
    place = screws.new_tensor([0.0, -ASIDE, -CAMERA_DISTANCE - BEFORE]).expand(n, 3)
    direction = screws.new_tensor([0.0, 0.0, 1.0]).expand(n, 3)
    for tilt, angle, mirror in (
        (FAR * screws[:, :2], 3 * math.pi / 4, (0.0, -ASIDE, -CAMERA_DISTANCE)),
        (NEAR * screws[:, 2:], -math.pi / 4, (0.0, 0.0, -CAMERA_DISTANCE)),
    ):
        normal = _normal(tilt, angle)
        reach = ((screws.new_tensor(mirror) - place) * normal).sum(dim=-1, keepdim=True)
        place = place + reach / (direction * normal).sum(dim=-1, keepdim=True) * direction
        direction = direction - 2 * (direction * normal).sum(dim=-1, keepdim=True) * normal
    pixels = torch.stack([x, y, torch.zeros_like(x)], dim=-1)
    offset = pixels - place.reshape(n, 1, 1, 3)
    along = (offset * direction.reshape(n, 1, 1, 3)).sum(dim=-1)
    return along, offset.square().sum(dim=-1) - along.square()


def _normal(tilt: Tensor, angle: float) -> Tensor:
    """A mirror's unit normal, `n x 3`, from its tilts `n x 2`."""
    flat = -tilt / (tilt.square() + 1).sqrt()
    upright = (1 - flat.square().sum(dim=-1)).sqrt()
    cos, sin = math.cos(angle), math.sin(angle)
    x, y, z = flat[:, 0], flat[:, 1], upright
    return torch.stack([x, cos * y + sin * z, cos * z - sin * y], dim=-1)
