"""What a campaign's surrogate has learnt, in the user's names and units.

The surrogate is fitted on `loop.py`, without Ax (a parity test holds the two together), to the
completed trials, under the seed that the next ask would use: it is the one that the next ask would
decide by.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bo_surrogates.analysis.cross_validation import CrossValidation, cross_validate
from bo_surrogates.analysis.lengthscales import lengthscales
from bo_surrogates.analysis.sensitivity import SobolIndices, sobol_indices
from bo_surrogates.campaign.baseline import absolute_constraints
from bo_surrogates.campaign.noise import training_noise
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.errors import FitWarning, InputError, did_you_mean
from bo_surrogates.loop import fit
from bo_surrogates.objective import OutcomeConstraint
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates import Surrogate
from bo_surrogates.threads import limited_threads

if TYPE_CHECKING:
    import pandas as pd

LEAST_TRIALS = 2
CHUNK = 256  # points predicted at a time; joint posteriors are quadratic in them


@dataclass(frozen=True)
class Prediction:
    """What is expected of one metric at n points, in its units.

    Attributes:
        mean: `n` means.
        stdv: `n` standard deviations.
        quantiles: `k x n` marginal quantiles.
    """

    mean: Tensor
    stdv: Tensor
    quantiles: Tensor


@dataclass(frozen=True)
class CampaignModel:
    """One fitted surrogate a metric. Made by `Campaign.model`.

    Attributes:
        spec: The campaign.
        trials: The completed trials that it was fitted to.
        surrogates: By metric, on model coordinates.
        X: `n x d` problem coordinates of the trials.
        seed: Of the fits.
    """

    spec: CampaignSpec
    trials: tuple[Trial, ...]
    surrogates: Mapping[str, Surrogate]
    X: Tensor
    seed: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics, the objectives' first."""
        return self.spec.metrics

    @property
    def unreliable(self) -> dict[str, str]:
        """Per metric whose fit did not converge, why."""
        return {
            metric: model.diagnostics.message
            for metric, model in self.surrogates.items()
            if not model.diagnostics.converged
        }

    @property
    def constraints(self) -> tuple[OutcomeConstraint, ...]:
        """The outcome constraints, relative ones made absolute.

        Raises:
            RunError: Their baseline has not been measured.
        """
        return absolute_constraints(self.spec, self.trials)

    def surrogate(self, metric: str) -> Surrogate:
        """The surrogate of a metric.

        Raises:
            InputError: There is no such metric.
        """
        if metric not in self.surrogates:
            raise InputError(f"unknown metric {metric!r}{did_you_mean(metric, self.surrogates)}")
        return self.surrogates[metric]

    # ---- predicting ------------------------------------------------------------------------------
    def encode(self, points: Sequence[Mapping[str, Any]]) -> Tensor:
        """Points by the user's names as `n x d` problem coordinates.

        Raises:
            InputError: A point is not in the search space; the message names it.
        """
        space, rows = self.spec.space, []
        for number, point in enumerate(points, start=1):
            try:
                rows.append(space.encode(space.validate(point)))
            except InputError as error:
                if len(points) == 1:
                    raise
                raise InputError(f"point {number}: {error}") from None
        return torch.stack(rows) if rows else torch.empty(0, space.dim, dtype=torch.float64)

    def marginals(
        self, metric: str, X: Tensor, levels: Sequence[float] = (), noise: bool = False
    ) -> Prediction:
        """Predict one metric at points, each by itself.

        Args:
            metric: Which.
            X: `n x d` problem coordinates.
            levels: `k` levels of quantiles, in (0, 1).
            noise: Of a measurement, instead of the noise-free outcome.
        """
        model: Any = self.surrogate(metric)
        wanted = torch.tensor(list(levels), dtype=torch.float64)
        means, variances, quantiles = [], [], []
        with torch.no_grad(), limited_threads(1):
            for Z in self.spec.space.to_model(X).split(CHUNK):
                posterior = model.posterior(Z, observation_noise=noise)
                means.append(posterior.mean.reshape(-1))
                variances.append(posterior.variance.reshape(-1))
                if levels:
                    values = model.quantile(Z, wanted, observation_noise=noise)
                    quantiles.append(values.reshape(len(levels), -1))
        return Prediction(
            torch.cat(means),
            torch.cat(variances).clamp_min(0.0).sqrt(),
            torch.cat(quantiles, dim=-1) if levels else torch.empty(0, len(X)),
        )

    def predict(
        self,
        points: pd.DataFrame | Sequence[Mapping[str, Any]] | Mapping[str, Any],
        *,
        level: float = 0.9,
        noise: bool = False,
    ) -> pd.DataFrame:
        """Predict all metrics at points.

        Args:
            points: One point by the parameters' names, several, or a DataFrame with a column a
                parameter (further columns are left out).
            level: Mass of the central interval, in (0, 1). Its ends are quantiles of the posterior,
                of whatever kind.
            noise: Predict a measurement, which has noise, instead of the noise-free outcome.

        Returns:
            A row a point: the parameters (none where inactive), and for each metric `m` its mean
            `m`, its standard deviation `m (sd)`, and the interval's ends `m (5%)` and `m (95%)`.

        Raises:
            InputError: A point is not in the search space, or the level is out of range.
        """
        import pandas as pd

        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
            raise InputError(f"level must be a number in (0, 1), such as 0.9, got {level!r}")
        if isinstance(points, pd.DataFrame):
            names = [n for n in self.spec.space.names if n in points.columns]
            points = [
                {str(k): v for k, v in row.items() if not pd.isna(v)}
                for row in points[names].to_dict(orient="records")
            ]
        elif isinstance(points, Mapping):
            points = [points]
        X = self.encode(points)
        valid = [self.spec.space.decode(x) for x in X]
        tails = (0.5 - level / 2, 0.5 + level / 2)
        columns: dict[str, Any] = {
            name: [v.get(name) for v in valid] for name in self.spec.space.names
        }
        for metric in self.metrics:
            found = self.marginals(metric, X, tails, noise)
            columns[metric] = found.mean.tolist()
            columns[f"{metric} (sd)"] = found.stdv.tolist()
            for column, ends in zip(interval_columns(metric, level), found.quantiles, strict=True):
                columns[column] = ends.tolist()
        return pd.DataFrame(columns)

    # ---- explaining ------------------------------------------------------------------------------
    def sensitivity(self, metric: str, **options: Any) -> SobolIndices:
        """Which parameters matter to a metric; options as of `sobol_indices`."""
        options = {"seed": derive_seed(self.spec.seed, "sensitivity"), **options}
        with limited_threads(1):
            return sobol_indices(self.surrogate(metric), self.spec.space, **options)

    def lengthscales(self, metric: str) -> dict[str, float] | None:
        """By varied parameter, in shares of its range; None where the surrogate has none."""
        found = lengthscales(self.surrogate(metric))
        if found is None:
            return None
        names = (p.name for p in self.spec.space.varied)
        return dict(zip(names, found.tolist(), strict=True))

    def cross_validate(self, metric: str, folds: int = 5) -> CrossValidation:
        """How well the surrogate predicts trials that it has not seen; at most `folds` fits.

        Raises:
            InputError: The trials are at one point only.
            FitError: A fold could not be fitted.
        """
        self.surrogate(metric)
        Y, Yvar = outcomes(self.spec, self.trials, metric)
        with limited_threads(1):
            return cross_validate(
                self.spec.space, self.X, Y, Yvar,
                surrogate=self.spec.surrogate, config=self.spec.surrogate_config, folds=folds,
                seed=derive_seed(self.seed, "cross-validation"),
            )  # fmt: skip


def interval_columns(metric: str, level: float) -> tuple[str, str]:
    """The columns of a table of predictions that hold the interval's ends."""
    low, high = (f"{metric} ({100 * (0.5 + sign * level / 2):.4g}%)" for sign in (-1, 1))
    return low, high


def fit_model(spec: CampaignSpec, trials: Sequence[Trial]) -> CampaignModel:
    """Fit a campaign's surrogate to its completed trials.

    Args:
        spec: The campaign.
        trials: All trials, by index.

    Raises:
        InputError: Too few trials are completed.
        FitError: The surrogate could not be fitted.
    """
    done = tuple(t for t in trials if t.status == "completed")
    if len(done) < LEAST_TRIALS:
        raise InputError(
            f"campaign {spec.name!r} has {len(done) or 'no'} completed "
            f"trial{'' if len(done) == 1 else 's'}; a surrogate needs at least {LEAST_TRIALS}"
        )
    X = torch.stack([spec.space.encode(t.parameters, outside=True) for t in done])
    seed = derive_seed(spec.seed, "fit", len(trials))
    surrogates: dict[str, Any] = {}
    with limited_threads(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # told by `unreliable`
        for metric in spec.metrics:
            Y, Yvar = outcomes(spec, done, metric)
            surrogates[metric] = fit(
                spec.space, X, Y, Yvar,
                surrogate=spec.surrogate, config=spec.surrogate_config, seed=seed,
            )  # fmt: skip
    return CampaignModel(spec, done, surrogates, X, seed)


def outcomes(
    spec: CampaignSpec, trials: Sequence[Trial], metric: str
) -> tuple[Tensor, Tensor | None]:
    """A metric's values and their variances, `n x 1` each, as asking takes them."""
    Y = torch.tensor([[t.value(metric)] for t in trials], dtype=torch.float64)
    sems = training_noise(spec, trials, metric)
    if sems is None:
        return Y, None
    return Y, torch.tensor([[sems[t.index]] for t in trials], dtype=torch.float64).square()
