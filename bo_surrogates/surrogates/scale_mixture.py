"""A Gaussian process that does not know the scale of its function: what `tp` and `nngp_t` share.

Model (outcomes standardized): y | s2 ~ N(c, s2 (K + N)), s2 ~ p(s2) of mean 1, with K a kernel of
amplitude 1 and N the noise, inferred or given per point. Noise is inside the scale mixture, so that
s2 meets the data in two numbers only; known variances are those at s2 = 1. Several outputs are
independent, each with its own s2 (and law of it), or have one s2 together: then they are
uncorrelated given the parameters, and still dependent, for a wild output widens the others.

Inference: the kernel's parameters, the noise and the mean maximize the marginal likelihood with s2
integrated out, plus log priors (`inference/scale_mixture.py`). The tail of p(s2) does not, in
terms of degrees of freedom v: one data set holds one draw of s2, and with the rest free the
likelihood grows towards v = infinity, the Gaussian process. It is given, or chosen from a grid by
the predictive density of each point given all others, times a prior; the parameters are then fitted
again. The prior, v/2 - 1 ~ Gamma(2, 1/2), is there because few points say little of v.

Prediction: the mixture over s2 given the data of the Gaussian process's joint posteriors, which
have one mean, and covariances that differ by the factor s2. Data that vary more than the prior
expects widen it everywhere. A function drawn by Matheron's rule has its own draw of s2.
"""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from botorch.acquisition.objective import PosteriorTransform, ScalarizedPosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.models.model import FantasizeMixin
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform, Standardize
from botorch.posteriors.posterior import Posterior
from gpytorch.likelihoods import Likelihood
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.inference.scale_laws import ScaleGrid
from bo_surrogates.posteriors.scale_grid import ScaleGridPosterior
from bo_surrogates.posteriors.scale_mixture import ScaleMixturePosterior
from bo_surrogates.posteriors.student_t import StudentTPosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FunctionSamples, Surrogate, seed_or_random
from bo_surrogates.surrogates.unit_scale_gp import UnitScaleGP


def predictive(gp: UnitScaleGP, loc: Tensor, covariance: Tensor) -> ScaleMixturePosterior:
    """The mixture of N(loc, s2 covariance) over the posterior of s2.

    Args:
        gp: Of m outputs; whose posterior of s2.
        loc: `batch_shape x q x m`.
        covariance: `batch_shape x m x q x q`, at s2 = 1.
    """
    law = gp.scale_posterior()
    if isinstance(law, ScaleGrid):
        return ScaleGridPosterior(loc, covariance, *law, shared_scale=gp.shared_scale)
    factor, df = law
    scale_matrix = factor[..., None, None] * covariance
    return StudentTPosterior(loc, scale_matrix, df.reshape(-1), shared_scale=gp.shared_scale)


class ScaleMixtureProcess(Surrogate, FantasizeMixin):
    """See the module's docstring.

    Not a GPyTorch model, for BoTorch and Ax read a Gaussian distribution from those; it has one.
    """

    gp_class: ClassVar[type[UnitScaleGP]]
    outcome_transform: OutcomeTransform  # where there is one

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        input_transform: InputTransform | None = None,
        outcome_transform: OutcomeTransform | None = None,
        *,
        config: Config | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        Y, Yvar = self.start(train_X, train_Y, train_Yvar, outcome_transform, config, seed)
        self.gp = self.gp_class(
            train_X, Y, Yvar, input_transform, config=self.config, seed=self.seed
        )
        self._outputs = list(range(train_Y.shape[-1]))  # those kept by subset_output
        self.prepare()

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Maximize the marginal likelihood and choose `df`; see `Surrogate.fit`."""
        gp, start = self.gp, warm_start.gp if isinstance(warm_start, ScaleMixtureProcess) else None
        gp.entry_name = self.entry_name
        if self.config.df is None and start is not None and start.df.shape == gp.df.shape:
            gp.df.copy_(start.df)
        gp.fit(start)
        if self.config.df is None:
            best = gp.best_df()
            if not torch.equal(best, gp.df):
                gp.df.copy_(best)
                gp.fit()  # goes on from the parameters of the first fit
        dfs = {f"degrees_of_freedom_{i}": df for i, df in enumerate(gp.df.reshape(-1).tolist())}
        self.diagnostics = replace(gp.diagnostics, values={**gp.diagnostics.values, **dfs})
        self.eval()
        return self

    # ---- prediction --------------------------------------------------------------------------
    def posterior(  # type: ignore[override]  # BoTorch's own bases differ
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """The joint posterior.

        Args:
            X: `batch_shape x q x d` inputs.
            output_indices: Outputs wanted; all if None.
            observation_noise: Whether to add observation noise: the variance that was learnt, or
                the mean of `train_Yvar`. A tensor, broadcastable to `batch_shape x q x m`, is used
                as the variance, of standardized outcomes at s2 = 1.
            posterior_transform: Applied to the posterior; a `ScalarizedPosteriorTransform` is
                exact, and refused where the result is no scale mixture.

        Returns:
            A `StudentTPosterior` if the law of s2 is inverse-gamma, else a `ScaleGridPosterior`.
        """
        loc, covariance = self.gp.joint(X, observation_noise)
        posterior: Any = predictive(self.gp, loc.mT, covariance)
        wanted = self._outputs if output_indices is None else [
            self._outputs[i] for i in output_indices
        ]  # fmt: skip
        transform = getattr(self, "outcome_transform", None)
        if isinstance(transform, Standardize):
            stdvs, means = torch.as_tensor(transform.stdvs), torch.as_tensor(transform.means)
            posterior = posterior.rescale(stdvs, means)
        elif transform is not None:
            if wanted != list(range(self.gp.num_outputs)):
                raise UnsupportedError("a choice of outputs needs an affine outcome transform")
            posterior = transform.untransform_posterior(posterior, X=X)
        if isinstance(posterior, ScaleMixturePosterior):
            posterior = posterior.select(wanted)
            if isinstance(posterior_transform, ScalarizedPosteriorTransform):
                weights = torch.as_tensor(posterior_transform.weights)
                return posterior.scalarize(weights, posterior_transform.offset)
        if posterior_transform is None:
            return posterior
        return posterior_transform(posterior=posterior, X=X)

    def log_predictive_density(self, X: Tensor, Y: Tensor) -> Tensor:
        """Of the mixture; see `Surrogate.log_predictive_density`."""
        posterior = self.posterior(X, observation_noise=True)
        if not isinstance(posterior, ScaleMixturePosterior):
            raise RunError(f"expected a scale mixture, got {type(posterior).__name__}")
        return posterior.log_density(Y)

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """Matheron's rule, and one draw of s2 given the data for each function and scale.

        See `Surrogate.sample_functions`.
        """
        if k < 1:
            raise InputError(f"sample_functions: k must be at least 1, got {k}")
        seed = seed_or_random(seed)
        # Copies: a later fit of this model does not change the functions.
        gp, outputs = deepcopy(self.gp), self._outputs
        transform = deepcopy(getattr(self, "outcome_transform", None))
        paths = gp.sample_functions(k, seed=derive_seed(seed, "paths"))
        with torch.no_grad():
            # Of one point at which the covariance is 1: its scale is that of s2 alone.
            one = torch.ones(gp.num_outputs, 1, 1).to(gp.train_targets)
            unit = predictive(gp, one.squeeze(-1).mT, one)
            generator = torch.Generator().manual_seed(derive_seed(seed, "scales"))
            columns = 1 if gp.shared_scale else gp.num_outputs
            normal = torch.randn(k, 1, columns, generator=generator, dtype=torch.float64).to(one)
            deviation = (unit.scale_multiplier(normal) * unit.scale).squeeze(-2)  # k x m

        def functions(X: Tensor) -> Tensor:
            mean = gp.joint(X, False)[0].mT
            scale = deviation.reshape(k, *[1] * (X.ndim - 1), deviation.shape[-1])
            values = mean + scale * (paths(X) - mean)
            if transform is not None:
                values, _ = transform.untransform(values, X=X)
            return values[..., outputs]

        return functions

    # ---- conditioning ------------------------------------------------------------------------
    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> Self:
        """The exact posterior given further observations, hyper-parameters and scaling kept.

        Args:
            X: `batch_shape x n' x d` inputs.
            Y: `batch_shape' x n' x m` outcomes.
            noise: Variances of the new observations, shaped as `Y`, of standardized outcomes at
                s2 = 1; needed where the model was given `train_Yvar`.
            **kwargs: Passed to GPyTorch's `get_fantasy_model`.

        Raises:
            UnsupportedError: The model was made by `subset_output`.
        """
        if self._outputs != list(range(self.gp.num_outputs)):
            raise UnsupportedError("condition the model of all outputs, then take the subset")
        if hasattr(self, "outcome_transform"):
            Y, _ = self.outcome_transform(Y, X=X)
        model = copy(self)
        model._modules = dict(self._modules)  # the transforms are shared, the process is not
        gp: Any = self.gp.condition_on_observations(X, Y, noise=noise, **kwargs)
        model.gp = gp
        model.training_data = None  # not these data: saving would lose the new observations
        return model

    # ---- what else BoTorch asks of a model ------------------------------------------------------
    @property
    def likelihood(self) -> Likelihood:
        """The noise model at s2 = 1."""
        return self.gp.likelihood

    @property
    def num_outputs(self) -> int:
        """m."""
        return len(self._outputs)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty, but for a model conditioned on a batch of observations."""
        return self.gp.batch_shape

    def transform_inputs(self, X: Tensor, input_transform: Any = None) -> Tensor:
        """Inputs as the kernel sees them."""
        return self.gp.transform_inputs(X, input_transform)

    def subset_output(self, idcs: list[int]) -> Self:
        """The model with some of its outputs; shares the process."""
        model = copy(self)
        model._outputs = [self._outputs[i] for i in idcs]
        return model
