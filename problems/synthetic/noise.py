"""Known functions observed under noise that is not Gaussian of constant variance.

The true function, its space and its optimum are those of another registered problem (`base`); only
what is observed differs. Scales are in units of `noise_scale`, in the units of the objective.

**heteroskedastic**: Gaussian noise whose standard deviation grows along the first input, from
`low` to `high` times the scale: sigma(x) = scale (low + (high - low) u(x)), u its position in the
box. At the quiet end few observations do; at the loud end many are needed.

**heavy_tailed**: Student-t noise with `df` degrees of freedom times the scale (variance
scale^2 df / (df - 2) for df > 2, none below), and, with probability `outliers`, an outlier: the
observation is off by +-`outlier_size` times the scale, as after a failed pipette or a sensor's
glitch. With outliers the variance is raised by outliers * outlier_size^2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, real
from problems.base import Problem
from problems.synthetic.branin import Branin
from problems.synthetic.hartmann import Hartmann6
from problems.synthetic.nonstationary import Xiong
from problems.synthetic.shifted import Ackley, Levy

BASES: dict[str, Callable[[], Problem]] = {
    "branin": Branin,
    "hartmann6": Hartmann6,
    "ackley": Ackley,
    "levy": Levy,
    "xiong": Xiong,
}


@dataclass(frozen=True)
class HeteroskedasticConfig(Config):
    """Options of `heteroskedastic`.

    Attributes:
        base: The function observed.
        noise_scale: Unit of the noise's standard deviation, in the objective's units.
        low: Standard deviation at the lower end of the first input, in that unit.
        high: At its upper end.
    """

    base: str = choice("branin", tuple(BASES))
    noise_scale: float = real(1.0, 0.0, 1e6)
    low: float = real(0.5, 0.0, 1e3)
    high: float = real(20.0, 0.0, 1e3)


@dataclass(frozen=True)
class HeavyTailedConfig(Config):
    """Options of `heavy_tailed`.

    Attributes:
        base: The function observed.
        noise_scale: Unit of the noise, in the objective's units.
        df: Degrees of freedom of the Student-t noise.
        outliers: Probability of an outlier.
        outlier_size: Of an outlier, in units of the scale.
    """

    base: str = choice("hartmann6", tuple(BASES))
    noise_scale: float = real(0.1, 0.0, 1e6)
    df: float = real(3.0, 0.5, 1e6)
    outliers: float = real(0.0, 0.0, 1.0)
    outlier_size: float = real(20.0, 0.0, 1e6)


class _Observed(Problem):
    """A problem's truth under other noise; the noise's own options say how much there is."""

    def __init__(self, config: Config, *, negate: bool) -> None:
        options: Any = config
        base = BASES[options.base]()
        super().__init__(
            base.space, base.objectives, config=config, optimum=base.optimum, negate=negate
        )
        self._base = base

    def _true_metrics(self, X: Tensor) -> Tensor:
        return self._base._true_metrics(X)

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator(X.device).manual_seed(seed)
        values = self._true_metrics(X)
        return values + self._noise(X, values.shape, generator)

    @abstractmethod
    def _noise(self, X: Tensor, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        """Noise for values of that shape at `... x d` problem coordinates."""


class Heteroskedastic(_Observed):
    """See the module's docstring; its noise is always on (`noise=False` gives the truth).

    Args:
        config: Options.
        negate: See `Problem`.
    """

    config_class: ClassVar[type[Config]] = HeteroskedasticConfig

    def __init__(
        self, config: HeteroskedasticConfig | None = None, *, negate: bool = False
    ) -> None:
        super().__init__(config or HeteroskedasticConfig(), negate=negate)

    def noise_stdv(self, X: Tensor) -> Tensor:
        """Standard deviation of the noise at `... x d` problem coordinates, `... x 1`."""
        options: Any = self.config
        low, high = self.bounds[:, 0].to(X)
        position = (X[..., :1] - low) / (high - low)
        return options.noise_scale * (options.low + (options.high - options.low) * position)

    def _noise(self, X: Tensor, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        normal = torch.randn(shape, generator=generator, dtype=X.dtype, device=X.device)
        return self.noise_stdv(X) * normal


class HeavyTailed(_Observed):
    """See the module's docstring; its noise is always on (`noise=False` gives the truth).

    Args:
        config: Options.
        negate: See `Problem`.
    """

    config_class: ClassVar[type[Config]] = HeavyTailedConfig

    def __init__(self, config: HeavyTailedConfig | None = None, *, negate: bool = False) -> None:
        super().__init__(config or HeavyTailedConfig(), negate=negate)

    def _noise(self, X: Tensor, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        options: Any = self.config
        normal, *uniform = (
            draw(shape, generator=generator, dtype=X.dtype, device=X.device)
            for draw in (torch.randn, torch.rand, torch.rand)
        )
        # t = normal / sqrt(chi^2 / df). torch's gamma sampler takes no generator: seed a fork.
        with torch.random.fork_rng(devices=[], enabled=generator is not None):
            if generator is not None:
                seed = torch.randint(2**62, (), generator=generator, device=X.device)
                torch.manual_seed(int(seed.item()))
            df = torch.tensor(options.df, dtype=torch.float64)
            chi2 = torch.distributions.Chi2(df).sample(shape).to(X)
        noise = normal * (options.df / chi2).sqrt()
        sign = torch.where(uniform[1] < 0.5, -1.0, 1.0)
        noise = noise + (uniform[0] < options.outliers) * sign * options.outlier_size
        return options.noise_scale * noise
