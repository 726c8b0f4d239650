"""Sparse axis-aligned subspace Gaussian process: for many inputs, few of which matter.

Model: y = f(x) + e, f ~ GP(c, v k), k Matern-5/2 with inverse squared lengthscales t r_j under
half-Cauchy priors (Eriksson & Jankowiak 2021, arXiv 2103.00349): the global t draws all of them to
zero, the heavy tails of r_j let those escape that the data need.

Inference of the hyper-parameters, by `inference`:
- "map": an ensemble of maxima of the posterior, one for each of several values of t at equal steps
  of its prior's distribution function (BoTorch's `EnsembleMapSaasSingleTaskGP`, which draws the
  values of t; Daulton et al. 2026). Seconds.
- "hmc": draws from the posterior by many-chain Hamiltonian Monte Carlo (`inference/hmc.py`,
  `inference/saas.py`), where the paper takes NUTS. Minutes.

Prediction: an equally weighted mixture of the exact Gaussian posteriors of the members.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from botorch.acquisition.objective import PosteriorTransform, ScalarizedPosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.models.map_saas import (
    add_saas_prior,
    get_gaussian_likelihood_with_gamma_prior,
    get_mean_module_with_normal_prior,
)
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform, Standardize
from botorch.models.utils import add_output_dim, gpt_posterior_settings
from botorch.posteriors.posterior import Posterior
from botorch.utils.constraints import LogTransformedInterval
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, Likelihood
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.inference.diagnostics import split_r_hat_and_bulk_ess
from bo_surrogates.inference.hmc import (
    init,
    leapfrog,
    reasonable_step_size,
    step,
    steps_of,
    warm_up,
)
from bo_surrogates.inference.saas import GLOBAL_SCALE, SaasPosterior, scales, unpack
from bo_surrogates.posteriors.gaussian_mixture import GaussianMixture
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    FunctionSamples,
    Surrogate,
    SurrogateEntry,
    seed_or_random,
)
from bo_surrogates.surrogates.exact_gp import ExactGPSurrogate


@dataclass(frozen=True)
class SAASConfig(Config):
    """Configuration of `saas`.

    Attributes:
        inference: "map" or "hmc"; see the module's docstring.
        members: Of the mixture; with "hmc", draws kept.
        chains: Of "hmc".
        warmup: Transitions of each chain of "hmc" that adapt its step size, before any is kept.
        samples: Transitions of each chain of "hmc" after these.
        max_leapfrog: Leapfrog steps in a transition at most.
        target_acceptance: Mean acceptance that the step size is adapted to.
        max_r_hat: Largest R-hat, of the log density, noise, amplitude and mean, for convergence.
    """

    _searched: ClassVar[tuple[str, ...] | None] = ("inference",)

    inference: str = choice("map", ("map", "hmc"))
    members: int = integer(8, 1, 256, log=True)
    chains: int = integer(8, 2, 256, log=True)
    warmup: int = integer(200, 10, 100_000, log=True)
    samples: int = integer(200, 4, 100_000, log=True)
    max_leapfrog: int = integer(48, 1, 10_000, log=True)
    target_acceptance: float = real(0.75, 0.1, 0.99)
    max_r_hat: float = real(1.2, 1.0, math.inf)


class SAASMembers(ExactGPSurrogate):
    """K Gaussian processes of the same standardized outcome, as K outputs, fitted by "map"."""

    config_class: ClassVar[type[Config]] = SAASConfig
    config: SAASConfig

    def prepare(self) -> None:
        """See `Surrogate.prepare`: the priors of BoTorch's model."""
        batch_shape, Y = self._aug_batch_shape, self.train_targets
        self.mean_module = get_mean_module_with_normal_prior(batch_shape).to(Y)
        # The quantiles of HalfCauchy(0.1) in the middle of K equal parts of its probability.
        count = max(batch_shape.numel(), 1)
        level = (torch.arange(count, dtype=Y.dtype, device=Y.device) + 0.5) / count
        t = GLOBAL_SCALE * (0.5 * math.pi * level).tan()
        add_saas_prior(self.covar_module.base_kernel.to(Y), tau=t.reshape(batch_shape))
        if not isinstance(self.likelihood, FixedNoiseGaussianLikelihood):
            self.likelihood = get_gaussian_likelihood_with_gamma_prior(batch_shape).to(Y)
        self.to(Y)

    @classmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """See `ExactGPSurrogate.make_kernel`."""
        return ScaleKernel(
            MaternKernel(nu=2.5, ard_num_dims=d, batch_shape=batch_shape),
            outputscale_constraint=LogTransformedInterval(1e-2, 1e4, initial_value=10),
            batch_shape=batch_shape,
        )

    def sample_hyperparameters(self, generator: torch.Generator) -> FitDiagnostics:
        """Replace the hyper-parameters by draws from their posterior ("hmc")."""
        config, several = self.config, self.num_outputs > 1
        with torch.no_grad():
            X = self.transform_inputs(self.train_inputs[0]) if self.training else (
                self.train_inputs[0]
            )  # fmt: skip
        y = self.train_targets
        known = isinstance(self.likelihood, FixedNoiseGaussianLikelihood)
        variance = self.likelihood.noise if known else None
        if several:
            X, y = X[0], y[0]
            variance = None if variance is None else variance[0]
        density = SaasPosterior(X, y, variance)
        d = X.shape[-1]
        scale = scales(d).to(X.device)
        centre = torch.tensor([0.0] * d + [math.log(GLOBAL_SCALE), 0.5, -4.0, 0.0]).to(scale)
        noise = torch.randn((config.chains, d + 4), generator=generator, dtype=torch.float64)
        state = init(centre + 0.5 * scale * noise.to(scale), density)
        trajectory = leapfrog(density, scale)
        size = reasonable_step_size(generator, state, trajectory, 0.05)
        state, size, _ = warm_up(
            generator, state, trajectory, steps=config.warmup, step_size=size,
            length=math.pi / 2, most=config.max_leapfrog, target=config.target_acceptance,
        )  # fmt: skip
        positions, densities, acceptance, divergent = [], [], 0.0, 0
        for i in range(config.samples):
            count = steps_of(i, size, math.pi / 2, config.max_leapfrog)
            state, info = step(generator, state, trajectory, size, count)
            positions.append(state.position)
            densities.append(state.log_density)
            acceptance += info.acceptance.mean().item() / config.samples
            divergent += int(info.divergent.sum())
        draws = torch.stack(positions, dim=1)  # chains x samples x (d + 4)
        watched = torch.cat([torch.stack(densities, dim=1)[..., None], draws[..., -3:]], dim=-1)
        r_hats, sizes = split_r_hat_and_bulk_ess(watched)
        r_hat, ess = r_hats.max().item(), sizes.min().item()
        flat = draws.transpose(0, 1).flatten(end_dim=1)  # time by time, all chains
        kept = torch.linspace(len(flat) / self.num_outputs, len(flat), self.num_outputs) - 1
        self._keep(flat[kept.round().long().to(flat.device)])
        converged = r_hat <= config.max_r_hat
        return FitDiagnostics(
            converged=converged,
            message=""
            if converged
            else f"R-hat is {r_hat:.2f} (at most {config.max_r_hat:g} wanted): raise samples "
            "and warmup, or take inference='map'",
            values={
                "max_r_hat": r_hat, "min_ess": ess, "acceptance": acceptance,
                "divergences": float(divergent), "step_size": size,
            },
        )  # fmt: skip

    def _keep(self, position: Tensor) -> None:
        """Set the hyper-parameters of the members from positions `K x (d + 4)`."""
        found = unpack(position)
        base, y = self.covar_module.base_kernel, self.train_targets
        shape = self._aug_batch_shape

        def bounded(constraint: Any, value: Tensor) -> Tensor:
            low, high = constraint.lower_bound.double(), constraint.upper_bound.double()
            return value.clamp(low * (1 + 1e-6), high * (1 - 1e-6)).to(y)

        lengthscale = bounded(base.raw_lengthscale_constraint, found.lengthscale)
        base.lengthscale = lengthscale.reshape(*shape, 1, -1)
        outputscale = bounded(self.covar_module.raw_outputscale_constraint, found.outputscale)
        self.covar_module.outputscale = outputscale.reshape(shape)
        self.mean_module.initialize(constant=found.mean.clamp(-9.9, 9.9).to(y).reshape(shape))
        if not isinstance(self.likelihood, FixedNoiseGaussianLikelihood):
            constraint = self.likelihood.noise_covar.raw_noise_constraint
            noise = bounded(constraint, found.noise).reshape(*shape, 1)
            self.likelihood.noise_covar.noise = noise

    def joint(self, X: Tensor, observation_noise: bool | Tensor) -> tuple[Tensor, Tensor]:
        """Means `batch_shape x K x q` and covariances `batch_shape x K x q x q`."""
        self.eval()
        X = self.transform_inputs(X)
        with gpt_posterior_settings():
            if self.num_outputs > 1:
                X, _ = add_output_dim(X=X, original_batch_shape=self._input_batch_shape)
            if torch.is_tensor(observation_noise) and self.num_outputs > 1:
                observation_noise = observation_noise.expand(
                    *observation_noise.shape[:-1], self.num_outputs
                )
            mvn = self._apply_noise(X, self(X), observation_noise)
            mean, covariance = mvn.mean, mvn.covariance_matrix
        if self.num_outputs > 1:
            return mean, covariance
        return mean.unsqueeze(-2), covariance.unsqueeze(-3)


class SAAS(Surrogate):
    """See the module's docstring. Not a GPyTorch model: its posterior is no Gaussian."""

    config_class: ClassVar[type[Config]] = SAASConfig
    config: SAASConfig
    outcome_transform: OutcomeTransform  # where there is one

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        input_transform: InputTransform | None = None,
        outcome_transform: OutcomeTransform | None = None,
        *,
        config: SAASConfig | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        Y, Yvar = self.start(train_X, train_Y, train_Yvar, outcome_transform, config, seed)
        members = self.config.members
        self.members = SAASMembers(
            train_X,
            Y.expand(-1, members).contiguous(),
            None if Yvar is None else Yvar.expand(-1, members).contiguous(),
            input_transform,
            config=self.config,
            seed=self.seed,
        )
        self.prepare()

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """By `config.inference`; see `Surrogate.fit`. With "hmc", chains start afresh."""
        members = self.members
        members.entry_name = self.entry_name
        if self.config.inference == "map":
            members.fit(warm_start.members if isinstance(warm_start, SAAS) else None)
            self.diagnostics = replace(members.diagnostics)
        else:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "saas"))
            self.diagnostics = members.sample_hyperparameters(generator)
        self.eval()
        return self

    @property
    def lengthscales(self) -> Tensor:
        """`members x d` lengthscales, of inputs in the unit cube: short where an input matters."""
        lengthscale: Tensor = self.members.covar_module.base_kernel.lengthscale.detach()
        return lengthscale.reshape(self.config.members, -1)

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """The mixture over members.

        Args:
            X: `batch_shape x q x d` inputs.
            output_indices: There is one output, 0.
            observation_noise: Whether to add each member's observation noise, or the mean of
                `train_Yvar`; a tensor, broadcastable to `batch_shape x q x 1`, is the variance of
                standardized outcomes.
            posterior_transform: Applied to the posterior; exact for a
                `ScalarizedPosteriorTransform`.

        Returns:
            A `GaussianMixture`.
        """
        mean, covariance = self.members.joint(X, observation_noise)
        posterior: Any = GaussianMixture(mean.unsqueeze(-1), covariance.unsqueeze(-3))
        transform = getattr(self, "outcome_transform", None)
        if isinstance(transform, Standardize):
            stdvs, means = torch.as_tensor(transform.stdvs), torch.as_tensor(transform.means)
            posterior = posterior.rescale(stdvs.reshape(-1), means.reshape(-1))
        elif transform is not None:
            posterior = transform.untransform_posterior(posterior, X=X)
        if posterior_transform is None:
            return posterior
        if isinstance(posterior_transform, ScalarizedPosteriorTransform) and isinstance(
            posterior, GaussianMixture
        ):
            weights = torch.as_tensor(posterior_transform.weights)
            return posterior.scalarize(weights, posterior_transform.offset)
        return posterior_transform(posterior=posterior, X=X)

    def log_predictive_density(self, X: Tensor, Y: Tensor) -> Tensor:
        """Of the mixture; see `Surrogate.log_predictive_density`."""
        posterior: Any = self.posterior(X, observation_noise=True)
        density: Tensor = posterior.log_density(Y)
        return density

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """Functions of the members in turn, in random order; see `Surrogate.sample_functions`."""
        if k < 1:
            raise InputError(f"sample_functions: k must be at least 1, got {k}")
        seed = seed_or_random(seed)
        count = self.config.members
        each = -(-k // count)
        paths = self.members.sample_functions(each, seed=derive_seed(seed, "paths"))
        generator = torch.Generator().manual_seed(derive_seed(seed, "members"))
        order = torch.randperm(each * count, generator=generator)[:k]
        transform = deepcopy(getattr(self, "outcome_transform", None))

        def functions(X: Tensor) -> Tensor:
            values = paths(X).movedim(-1, 1).flatten(end_dim=1)  # (each * members) x ... x n
            values = values[order.to(values.device)].unsqueeze(-1)
            if transform is not None:
                values, _ = transform.untransform(values, X=X)
            return values

        return functions

    def condition_on_observations(self, X: Tensor, Y: Tensor, **kwargs: Any) -> Self:
        """Not available: new observations change the weights of the members.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(
            "the weights of a SAAS model's members depend on all of its observations; build the "
            "model again on all data with warm_start=model, or use a surrogate with exact "
            "conditioning such as 'gp'"
        )

    def fantasize(self, X: Tensor, *args: Any, **kwargs: Any) -> Self:
        """Not available; see `condition_on_observations`."""
        return self.condition_on_observations(X, X)

    @property
    def likelihood(self) -> Likelihood:
        """The noise models of the members."""
        return self.members.likelihood

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """Empty."""
        return torch.Size()

    def transform_inputs(self, X: Tensor, input_transform: Any = None) -> Tensor:
        """Inputs as the kernel sees them."""
        return self.members.transform_inputs(X, input_transform)

    def subset_output(self, idcs: list[int]) -> Self:
        """The model itself, for [0]."""
        if list(idcs) != [0]:
            raise InputError(f"saas has one output, 0; got {idcs}")
        return self


SURROGATES.register(
    SurrogateEntry(
        name="saas",
        model_class=SAAS,
        summary="Sparse axis-aligned subspaces: a GP for many inputs of which few matter",
        paper="Eriksson & Jankowiak 2021, arXiv 2103.00349",
        capabilities=Capabilities(
            posterior="mixture", multi_output=False, max_n=500, max_d=200, cost="seconds"
        ),
    )
)
