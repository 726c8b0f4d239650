"""Coverage and capacity of a cellular network: the power and the downtilt of fifteen antennas.

Five base stations of three sectors each serve an area of 6 km by 6 km. Each sector transmits at
30 to 50 dBm with its antenna tilted down by 0 to 10 degrees. The received power of a sector at a
place is transmit power + antenna gain - path loss - shadowing. With the strongest sector serving,
and the sum of all others' powers (at least 1e-24 W) as interference, minimize

    weak_coverage    the share of places whose strongest signal is below -80 dBm, and
    over_coverage    the share of the others whose interference is within 6 dB of their signal.

More power mends the first and harms the second. The maps are made here, by `map_seed`:

* path loss 128.1 + 37.6 log10(distance in km) dB, over the slant distance from an antenna 25 m high
  to a receiver 1.5 m high (3GPP TR 36.814, macro cell at 2 GHz);
* antenna gain 15 dBi less min(A_h + A_v, 30), where A_h = min(12 (phi / 70)^2, 30) for the angle
  phi off the sector's direction and A_v = min(12 ((theta - tilt) / 10)^2, 20) for the angle theta
  below the horizon, in degrees (3GPP TR 36.814, table A.2.1.1-2);
* shadowing: for each station a Gaussian field of 8 dB, white noise smoothed by a Gaussian of 120 m.

The reference study has the same formulas on maps of a commercial simulator, which may not be
redistributed; values here are of the same kind, not the same.

Source: Dreifuerst et al. 2021, ICASSP, arXiv 2010.13710; as in Li, Rudner and Wilson 2024, ICLR,
arXiv 2305.20028.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from bo_surrogates.config import Config, integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Ordered, Space
from problems.base import Problem

SIDE, PIXEL = 6000.0, 120.0  # m
STATIONS = (
    (1500.0, 1500.0), (4500.0, 1500.0), (3000.0, 3000.0), (1500.0, 4500.0), (4500.0, 4500.0),
)  # m  # fmt: skip
DIRECTIONS = (30.0, 150.0, 270.0)  # degrees, of the three sectors
ANTENNA_HEIGHT, RECEIVER_HEIGHT = 25.0, 1.5  # m
GAIN, FLOOR = 15.0, 30.0  # dBi, dB
WIDTH_H, WIDTH_V = 70.0, 10.0  # degrees, of the antenna's beam
SHADOWING, SMOOTHING = 8.0, 120.0  # dB, m
WEAK, MARGIN = -80.0, 6.0  # dBm, dB
TILTS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)  # degrees
LEAST_INTERFERENCE = 1e-24  # W
REFERENCE = 0.35
BLOCK = 256  # points evaluated together


@dataclass(frozen=True)
class CellCoverageConfig(Config):
    """Options of `cell_coverage`.

    Attributes:
        map_seed: Of the shadowing.
    """

    map_seed: int = integer(0, 0, 2**31 - 1)


class CellCoverage(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = CellCoverageConfig
    maps: Tensor  # sectors x tilts x places, dB

    def __init__(
        self,
        config: CellCoverageConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        config = config or CellCoverageConfig()
        sectors = [f"{s + 1}{'abc'[k]}" for s in range(len(STATIONS)) for k in range(3)]
        super().__init__(
            Space(
                [
                    *(Float(f"power_{s}", 30.0, 50.0, unit="dBm") for s in sectors),
                    *(Ordered(f"tilt_{s}", TILTS, unit="°") for s in sectors),
                ]
            ),
            [
                Objective("weak_coverage", reference=REFERENCE),
                Objective("over_coverage", reference=REFERENCE),
            ],
            config=config,
            noise_std=noise_std,
            negate=negate,
        )
        self.register_buffer("maps", torch.from_numpy(received_gain(config.map_seed)))

    def _true_metrics(self, X: Tensor) -> Tensor:
        rows = X.reshape(-1, self.dim)
        blocks = [self._shares(block) for block in rows.split(BLOCK)]
        return torch.cat(blocks).reshape(*X.shape[:-1], 2) if blocks else rows[:, :2]

    def _shares(self, X: Tensor) -> Tensor:
        sectors = X.shape[-1] // 2
        maps = self.maps.to(X)
        gains = maps[torch.arange(sectors), X[:, sectors:].long()]  # n x sectors x places
        power = gains + X[:, :sectors].unsqueeze(-1)  # dBm
        strongest = power.amax(dim=1)
        watts = 10 ** (power / 10 - 3)
        others = (watts.sum(dim=1) - watts.amax(dim=1)).clamp_min(LEAST_INTERFERENCE)
        interference = 10 * others.log10() + 30
        weak = strongest < WEAK
        over = ~weak & (interference + MARGIN > strongest)
        return torch.stack([weak.to(X).mean(dim=-1), over.to(X).mean(dim=-1)], dim=-1)


def received_gain(seed: int) -> np.ndarray:
    """Gain of each sector at each tilt and place, as if it transmitted at 0 dBm.

    Args:
        seed: Of the shadowing.

    Returns:
        `15 x 6 x 2500` in dB.
    """
    rng = np.random.default_rng(seed)
    side = np.arange(PIXEL / 2, SIDE, PIXEL)
    east, north = np.meshgrid(side, side, indexing="ij")
    maps = []
    for x, y in STATIONS:
        field = gaussian_filter(rng.standard_normal(east.shape), SMOOTHING / PIXEL, mode="wrap")
        shadowing = SHADOWING * field / field.std()
        along = np.hypot(east - x, north - y)
        drop = ANTENNA_HEIGHT - RECEIVER_HEIGHT
        loss = 128.1 + 37.6 * np.log10(np.hypot(along, drop) / 1000)
        below = np.degrees(np.arctan2(drop, along))
        bearing = np.degrees(np.arctan2(north - y, east - x))
        for direction in DIRECTIONS:
            off = (bearing - direction + 180) % 360 - 180
            horizontal = np.minimum(12 * (off / WIDTH_H) ** 2, FLOOR)
            for tilt in TILTS:
                vertical = np.minimum(12 * ((below - tilt) / WIDTH_V) ** 2, 20.0)
                pattern = GAIN - np.minimum(horizontal + vertical, FLOOR)
                maps.append(pattern - loss - shadowing)
    return np.stack(maps).reshape(len(STATIONS) * len(DIRECTIONS), len(TILTS), -1)
