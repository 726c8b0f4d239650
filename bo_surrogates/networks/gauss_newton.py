"""Networks trained by Gauss-Newton steps, their prior variances and noise by the evidence.

The maximum a posteriori weights minimize

    E(theta) = sum_ij (y_ij - f_j(x_i))^2 / (2 v_j) + |S^-1/2 (theta - theta_0)|^2 / 2.

A Gauss-Newton step goes to the posterior mean of the network linearized where it stands, which is
exact Bayesian linear regression (`linearized_posterior.py`); it is halved until E falls. Between
steps the logarithms of the prior variances (factors that multiply given ones) and of the noise
variances move towards the maximum of the evidence of the same linear model,

    log N(r; 0, J S J' + N) + log priors,

by a few iterations of L-BFGS-B (MacKay 1992, "A practical Bayesian framework for backpropagation
networks"; Foresee and Hagan 1997, "Gauss-Newton approximation to Bayesian learning"; Immer et al.
2021, arXiv 2104.04975). The evidence of features that have not been trained calls everything noise:
the first steps keep the prior's values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.networks.linearization import Linearization, linearize
from bo_surrogates.networks.linearized_posterior import WeightPrior, condition

MAX_HALVINGS = 12
MAX_LOG_FACTOR = 6.0  # of a prior variance, either way
MIN_NOISE, MAX_NOISE = 1e-4, math.e  # of learnt noise variances, standardized
TOLERANCE = 1e-3  # steps end when E falls by less than this part of the number of observations


@dataclass(frozen=True)
class Evidence:
    """What the evidence decides, and the prior of it.

    Attributes:
        factors: Which factor each of the `2 (depth + 1)` prior variances has, e.g. (0, 0, 0, 0) for
            a shared one; empty if they are fixed.
        factor_std: Standard deviation of the logarithm of a factor; its mean is 0.
        noise: Whether the noise variances are learnt.
        log_noise_mean: Mean of the logarithm of a noise variance.
        log_noise_std: Its standard deviation.
        iterations: L-BFGS-B iterations between two steps.
        first: Steps before the first of them.
    """

    factors: tuple[int, ...]
    factor_std: float
    noise: bool
    log_noise_mean: float
    log_noise_std: float
    iterations: int
    first: int


@dataclass(frozen=True)
class Trained:
    """Where training ended.

    Attributes:
        theta: `P` weights.
        prior: With the learnt variances.
        noise: `n x m` noise variances.
        steps: Gauss-Newton steps taken.
        objective: E at `theta`.
        log_evidence: Of the network linearized before the last step.
    """

    theta: Tensor
    prior: WeightPrior
    noise: Tensor
    steps: int
    objective: float
    log_evidence: float


def log_evidence(gram: Tensor, variances: Tensor, residual: Tensor, noise: Tensor) -> Tensor:
    """log N(r; 0, sum_g v_g G_g + N), the marginal likelihood of the linearized network.

    Args:
        gram: `g x N x N`, see `Linearization.gram`.
        variances: `g` prior variances.
        residual: `N` observed values less their prior mean.
        noise: `N` noise variances.
    """
    S = torch.einsum("g,gij->ij", variances, gram) + torch.diag(noise)
    L = psd_safe_cholesky(S)
    white = torch.linalg.solve_triangular(L, residual.unsqueeze(-1), upper=False)
    constant = 0.5 * len(residual) * math.log(2 * math.pi)
    return -0.5 * white.square().sum() - L.diagonal().log().sum() - constant


def negative_log_posterior(
    theta: Tensor, prior: WeightPrior, X: Tensor, Y: Tensor, noise: Tensor
) -> Tensor:
    """E(theta) of the module's docstring; `X` `n x d`, `Y` and `noise` `n x m`."""
    values = prior.network.forward(theta.unsqueeze(0), X).squeeze(0)
    misfit = ((Y - values).square() / noise).sum()
    return 0.5 * (misfit + ((theta - prior.mean).square() / prior.diagonal).sum())


def train(
    theta: Tensor,
    prior: WeightPrior,
    X: Tensor,
    Y: Tensor,
    noise: Tensor,
    evidence: Evidence,
    steps: int,
) -> Trained:
    """Train one network; deterministic.

    Args:
        theta: `P` first weights.
        prior: Its variances are those of factors 1.
        X: `n x d` inputs.
        Y: `n x m` outcomes, standardized.
        noise: `n x m` first noise variances; with `evidence.noise`, the same for all points.
        evidence: What is learnt besides the weights.
        steps: Most Gauss-Newton steps.

    Raises:
        NotPSDError: A covariance could not be factorized, e.g. since the weights diverged.
    """
    base, value = prior.variances, math.nan
    objective = negative_log_posterior(theta, prior, X, Y, noise)
    taken = 0
    for step in range(steps):
        at = linearize(prior.network, theta, X)
        if step >= evidence.first:
            prior, noise, value = maximize_evidence(at, base, prior, Y, noise, evidence)
            objective = negative_log_posterior(theta, prior, X, Y, noise)
        change = condition(at, prior, Y, noise).mean_weights - theta
        before = objective
        for halving in range(MAX_HALVINGS):
            trial = theta + change / 2**halving
            value_there = negative_log_posterior(trial, prior, X, Y, noise)
            if value_there < objective:
                best, objective = trial, value_there
            elif objective < before:  # the step before was better
                break
        if objective < before:
            theta, taken = best, taken + 1
        if step > evidence.first and before - objective < TOLERANCE * Y.numel():
            break
    return Trained(theta, prior, noise, taken, float(objective), value)


def maximize_evidence(
    at: Linearization,
    base: Tensor,
    prior: WeightPrior,
    Y: Tensor,
    noise: Tensor,
    evidence: Evidence,
) -> tuple[WeightPrior, Tensor, float]:
    """Prior and noise variances that make the observations more likely, and the log evidence.

    Args:
        at: The network at the `n x d` training inputs.
        base: `2 (depth + 1)` prior variances of factors 1.
        prior: The prior so far.
        Y: `n x m` outcomes.
        noise: `n x m` noise variances so far.
        evidence: What to learn.
    """
    gram = at.gram(at)
    residual = Y.flatten() - prior.function_mean(at)
    members = torch.tensor(evidence.factors, dtype=torch.long, device=base.device)
    count = len(set(evidence.factors))
    log_factor = (prior.variances / base).log()
    start = [log_factor[members == i].mean() for i in range(count)]
    low, high = [-MAX_LOG_FACTOR] * count, [MAX_LOG_FACTOR] * count
    mean, std = [0.0] * count, [evidence.factor_std] * count
    if evidence.noise:
        m = Y.shape[-1]
        start += list(noise[0].log())
        low, high = low + [math.log(MIN_NOISE)] * m, high + [math.log(MAX_NOISE)] * m
        mean, std = mean + [evidence.log_noise_mean] * m, std + [evidence.log_noise_std] * m
    centre, scale = base.new_tensor(mean), base.new_tensor(std)

    def variances(state: Tensor) -> tuple[Tensor, Tensor]:
        weights = base * state[:count][members].exp() if count else prior.variances
        return weights, state[count:].exp().expand_as(noise) if evidence.noise else noise

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        state = torch.from_numpy(values).to(base).requires_grad_()
        weights, each = variances(state)
        likely = log_evidence(gram, weights, residual, each.flatten())
        total = 0.5 * ((state - centre) / scale).square().sum() - likely
        (gradient,) = torch.autograd.grad(total, state)
        return total.item(), gradient.cpu().double().numpy()

    with torch.enable_grad():
        if start:
            best = minimize(
                loss,
                torch.stack(start).cpu().double().numpy(),
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(low, high, strict=True)),
                options={"maxiter": evidence.iterations},
            )
            weights, noise = variances(torch.from_numpy(best.x).to(base))
            prior = replace(prior, variances=weights)
    return prior, noise, log_evidence(gram, prior.variances, residual, noise.flatten()).item()
