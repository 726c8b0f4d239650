"""Scale mixtures of infinitely wide networks: against quadrature over the scale, finite networks,
`tp` and `nngp`; and the processes whose outputs share a scale.

What every surrogate owes is in the contract suite, run with the inverse-gamma law.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from botorch.sampling.normal import IIDNormalSampler
from scipy.integrate import quad
from scipy.stats import multivariate_normal, multivariate_t, norm, t
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.errors import InputError
from bo_surrogates.inference.scale_laws import InverseGamma, ScaleLaw
from bo_surrogates.loop import propose
from bo_surrogates.objective import Objective
from bo_surrogates.posteriors.scale_grid import ScaleGridPosterior
from bo_surrogates.posteriors.student_t import StudentTPosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Float, Space
from bo_surrogates.surrogates import SURROGATES, load_surrogate
from bo_surrogates.surrogates.nngp_scale_mixture import NNGPScaleMixture, NNGPTConfig
from bo_surrogates.surrogates.scale_mixture import ScaleMixtureProcess
from bo_surrogates.surrogates.unit_scale_gp import DF_GRID

ENTRY = SURROGATES["nngp_t"]
LAWS = ["inverse-gamma", "burr", "log-normal"]
D, N, DF = 2, 7, 3.0
LEVELS = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)


def data(n: int = N, m: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, D, generator=generator, dtype=torch.float64)
    Y = torch.stack([20 + 4 * torch.sin(5 * X[:, 0]), X.sum(dim=-1) ** 2], dim=-1)[:, :m]
    return X, Y + 0.3 * torch.randn(n, m, generator=generator, dtype=torch.float64)


def inputs(n: int, seed: int = 5) -> Tensor:
    return torch.rand(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(X: Tensor, Y: Tensor, name: str = "nngp_t", **config: object) -> ScaleMixtureProcess:
    model = SURROGATES[name].build(X, Y, config=config, seed=0)
    assert isinstance(model, ScaleMixtureProcess)
    return model


@pytest.fixture(scope="module", params=LAWS)
def model(request: pytest.FixtureRequest) -> ScaleMixtureProcess:
    return build(*data(), law=request.param, df=DF)


@pytest.fixture(scope="module", params=LAWS)
def shared(request: pytest.FixtureRequest) -> ScaleMixtureProcess:
    return build(*data(m=2), law=request.param, shared_scale=True)


class Dense:
    """Matrices at s2 = 1 of each output in standardized units, straight from kernel and noise."""

    def __init__(self, model: ScaleMixtureProcess, new: Tensor, m: int = 1) -> None:
        X, Y = data(m=m)
        gp = model.gp
        K = gp.covar_module(torch.cat([X, new])).to_dense().detach()
        K = K.reshape(m, N + len(new), -1)
        mean = gp.mean_module.constant.detach().reshape(m, 1)
        self.noise = gp.likelihood.noise.detach().reshape(m, 1).expand(m, N)
        self.S = K[:, :N, :N] + torch.diag_embed(self.noise)
        gain = torch.linalg.solve(self.S, K[:, :N, N:]).mT
        self.offset, self.unit = Y.mean(dim=0), Y.std(dim=0)
        self.residual = ((Y - self.offset) / self.unit).mT - mean
        self.mean = mean + (gain @ self.residual.unsqueeze(-1)).squeeze(-1)  # m x q
        self.covariance = K[:, N:, N:] - gain @ K[:, :N, N:]
        self.law = model.gp.scale_law()
        self.at_unit_scale = [multivariate_normal(np.zeros(N), S) for S in self.S.numpy()]

    def expect(self, value: object, law: ScaleLaw, outputs: list[int]) -> float:
        """E[value(s2) | these outputs] by quadrature over log s2."""
        residual = self.residual.numpy()

        def likelihood(s2: float) -> float:  # N(r; 0, s2 S) = s2^(-N / 2) N(r / s; 0, S)
            return math.prod(
                self.at_unit_scale[j].pdf(residual[j] / s2**0.5) * s2 ** (-N / 2) for j in outputs
            )

        def integrate(g: object) -> float:
            def integrand(u: float) -> float:
                prior = law.log_density(torch.tensor(u, dtype=torch.float64)).exp()
                return float(prior.reshape(-1)[0]) * likelihood(np.exp(u)) * g(np.exp(u))  # type: ignore[operator]

            return quad(integrand, -12, 14, epsabs=0, epsrel=1e-8, limit=200)[0]

        return integrate(value) / integrate(lambda s2: 1.0)


# ---- the model -----------------------------------------------------------------------------------
def test_a_wide_network_with_a_random_last_layer_is_student_t() -> None:
    """Outputs of 20,000 networks of 512 ReLU units, at one input, each with its own variance of the
    last layer: they follow the t distribution with the kernel's variance, and no normal one."""
    draws, width, v = 20_000, 512, 4.0
    X, Y = data()
    kernel = build(X, Y, df=v, depth=1).gp.covar_module
    x = inputs(1)
    with torch.no_grad():
        variance = kernel(x).to_dense().item()
        z = kernel.scaled_inputs(x)
        sw, sb = kernel.network.weight_variance, kernel.bias_variance.item()
    # One input: the units before the activation are independent, of this variance.
    before = sw * z.square().sum().item() / D + sb
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(draws, width, generator=generator).mul_(math.sqrt(before)).relu_()
    last = torch.randn(draws, width, generator=generator)
    scale = 1 / (2 * torch._standard_gamma(torch.full((draws,), v / 2), generator=generator))
    s2 = (v - 2) * scale  # InvGamma(v / 2, (v - 2) / 2)
    output = (hidden * last).sum(-1) * (sw / width) ** 0.5
    bias = math.sqrt(sb) * torch.randn(draws, generator=generator)
    values = np.sort((s2.sqrt() * (output + bias)).double().numpy())
    steps = np.arange(draws + 1) / draws

    def distance(cdf: object) -> float:
        u = cdf(values)  # type: ignore[operator]
        return float(max((u - steps[:-1]).max(), (steps[1:] - u).max()))

    bound = math.sqrt(math.log(2e7) / (2 * draws))  # exceeded with probability below 1e-7
    assert distance(t(v, scale=math.sqrt((v - 2) / v * variance)).cdf) < bound
    assert distance(norm(scale=math.sqrt(variance)).cdf) > bound


def test_with_the_inverse_gamma_law_it_is_the_student_t_process() -> None:
    X, Y = data()
    ours = build(X, Y, activation="gelu", depth=2)
    other = build(X, Y, "tp", kernel="nngp", activation="gelu", depth=2)
    new = inputs(4)
    assert isinstance(ours.posterior(new), StudentTPosterior)
    torch.testing.assert_close(ours.posterior(new).mean, other.posterior(new).mean)
    torch.testing.assert_close(ours.posterior(new).variance, other.posterior(new).variance)
    assert ours.gp.df == other.gp.df


@pytest.mark.parametrize("law", LAWS)
def test_predictions_become_those_of_a_gaussian_process_as_df_grows(law: str) -> None:
    X, Y = data()
    model = build(X, Y, law=law, df=1e6)
    dense = Dense(model, inputs(4))
    posterior = model.posterior(inputs(4))
    mean = dense.offset + dense.unit * dense.mean.squeeze(0)
    deviation = dense.unit * dense.covariance[0].diagonal().sqrt()
    torch.testing.assert_close(posterior.mean.squeeze(-1), mean)
    torch.testing.assert_close(
        posterior.variance.sqrt().squeeze(-1), deviation, rtol=1e-4, atol=1e-6
    )
    normal = mean + deviation * torch.special.ndtri(LEVELS)[:, None]
    torch.testing.assert_close(
        model.quantile(inputs(4), LEVELS).squeeze(-1), normal, rtol=1e-5, atol=1e-5
    )


def test_prediction_is_the_mixture_over_the_scale(model: ScaleMixtureProcess) -> None:
    new = inputs(2)
    dense = Dense(model, new)
    posterior = model.posterior(new)
    mean = dense.offset + dense.unit * dense.mean.squeeze(0)
    torch.testing.assert_close(posterior.mean.squeeze(-1), mean)
    spread = dense.expect(lambda s2: s2, dense.law, [0]) * dense.unit**2
    expected = spread * dense.covariance[0].diagonal()
    torch.testing.assert_close(posterior.variance.squeeze(-1), expected, rtol=1e-6, atol=0)
    y = posterior.mean + 1.5
    standard = (y[0, 0] - dense.offset) / dense.unit
    variance = (dense.covariance[0, 0, 0] + dense.noise[0, 0]).item()

    def normal(s2: float) -> float:
        density = norm.pdf(standard.item(), dense.mean[0, 0].item(), math.sqrt(s2 * variance))
        return float(density / dense.unit.item())

    density = model.log_predictive_density(new, y).exp()[0, 0].item()
    assert density == pytest.approx(dense.expect(normal, dense.law, [0]), rel=1e-6)


def test_the_objective_is_the_marginal_likelihood_plus_log_priors(
    model: ScaleMixtureProcess,
) -> None:
    dense = Dense(model, inputs(1))
    law = dense.law

    def integrand(u: float) -> float:
        prior = law.log_density(torch.tensor(u, dtype=torch.float64)).item()
        normal = multivariate_normal(np.zeros(N), np.exp(u) * dense.S[0].numpy())
        return float(np.exp(prior + normal.logpdf(dense.residual[0])))

    expected = math.log(quad(integrand, -12, 14, epsabs=0, epsrel=1e-9, limit=200)[0])
    for _, module, prior, closure, _ in model.gp.named_priors():
        expected += prior.log_prob(closure(module)).sum().item()
    value = model.diagnostics.values["log_marginal_likelihood_per_point"]
    assert value * N == pytest.approx(expected, rel=1e-6)


def test_the_laws_give_different_predictions_with_equal_parameters() -> None:
    """At n = 7 the law matters; nothing here is the same formula by another name."""
    X, Y = data()
    reference = build(X, Y, law="inverse-gamma", df=DF)
    widths = set()
    for law in LAWS:
        other = NNGPScaleMixture(
            X, (Y - Y.mean()) / Y.std(), config=NNGPTConfig(law=law, df=DF), seed=0
        )
        other.gp.load_state_dict(reference.gp.state_dict())
        widths.add(round(other.eval().posterior(inputs(1)).variance.item(), 4))
    assert len(widths) == len(LAWS)


# ---- one scale for several outputs ---------------------------------------------------------------
def test_a_shared_scale_is_learnt_from_all_outputs(shared: ScaleMixtureProcess) -> None:
    new = inputs(2)
    dense = Dense(shared, new, m=2)
    posterior = shared.posterior(new)
    assert posterior.shared_scale
    mean_square = dense.expect(lambda s2: s2, dense.law, [0, 1])
    variance = dense.covariance.diagonal(dim1=-2, dim2=-1).mT
    expected = mean_square * variance * dense.unit**2
    torch.testing.assert_close(posterior.variance, expected, rtol=1e-6, atol=0)
    alone = dense.expect(lambda s2: s2, dense.law, [0])
    assert abs(alone / mean_square - 1) > 1e-3  # one output says something else


def test_a_shared_scale_has_one_tail(shared: ScaleMixtureProcess) -> None:
    first, second = shared.gp.df.tolist()
    assert first == second
    assert first in DF_GRID


def test_parameters_of_outputs_with_a_shared_scale_maximize_their_joint_likelihood() -> None:
    """SciPy's multivariate t of both outputs, at the parameters and near them."""
    model = build(*data(m=2), shared_scale=True, df=DF)
    gp = model.gp
    own = [p for p in gp.parameters() if p.requires_grad]

    def value() -> float:
        dense = Dense(model, inputs(1), m=2)
        shape = np.zeros((2 * N, 2 * N))
        shape[:N, :N], shape[N:, N:] = (DF - 2) / DF * dense.S
        joint = multivariate_t(np.zeros(2 * N), shape, df=DF)
        log_prior = sum(
            prior.log_prob(closure(module)).sum().item()
            for _, module, prior, closure, _ in gp.named_priors()
        )
        return joint.logpdf(dense.residual.reshape(-1).numpy()) + log_prior

    best = value()
    reported = model.diagnostics.values["log_marginal_likelihood_per_point"]
    assert reported * N == pytest.approx(best, rel=1e-6)
    bounds = {id(p): c for _, p, c in gp.named_parameters_and_constraints() if c is not None}
    generator = torch.Generator().manual_seed(0)
    tried = 0
    for _ in range(40):
        before = [p.detach().clone() for p in own]
        with torch.no_grad():
            for p in own:
                p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
            if all(id(p) not in bounds or bounds[id(p)].check_raw(p) for p in own):
                tried += 1
                assert value() < best + 1e-5
            for p, old in zip(own, before, strict=True):
                p.copy_(old)
    assert tried >= 5


def test_a_drawn_function_has_one_scale_for_all_outputs(shared: ScaleMixtureProcess) -> None:
    """Its deviation from the mean is one multiple of that of independent Gaussian processes."""
    seed, new = 3, inputs(3)
    _, Y = data(m=2)
    with torch.no_grad():
        mean = shared.posterior(new).mean
        functions = shared.sample_functions(50, seed=seed)(new) - mean
        paths = shared.gp.sample_functions(50, seed=derive_seed(seed, "paths"))(new)
        gaussian = Y.std(dim=0) * (paths - (mean - Y.mean(dim=0)) / Y.std(dim=0))
    ratio = (functions / gaussian).median(dim=1).values  # 50 x m
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1], rtol=1e-6, atol=0)
    assert ratio[:, 0].log().std() > 0.05


# ---- conditioning and draws ----------------------------------------------------------------------
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("share", [False, True])
def test_conditioning_equals_a_model_rebuilt_with_the_same_parameters(
    law: str, share: bool
) -> None:
    (X, Y), (X_new, Y_new) = data(m=2), data(4, m=2, seed=7)
    model = build(X, Y, law=law, df=DF, shared_scale=share)
    mean, std = Y.mean(dim=0), Y.std(dim=0)
    conditioned = model.condition_on_observations(X_new, Y_new)
    rebuilt = NNGPScaleMixture(
        torch.cat([X, X_new]), (torch.cat([Y, Y_new]) - mean) / std, config=model.config
    )
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in rebuilt.named_parameters():
            parameter.copy_(own[name])
    ours, standard = conditioned.posterior(inputs(4)), rebuilt.eval().posterior(inputs(4))
    torch.testing.assert_close(ours.mean, mean + std * standard.mean)
    torch.testing.assert_close(ours.variance, std**2 * standard.variance)
    torch.testing.assert_close(
        ours.quantile(LEVELS), mean + std * standard.quantile(LEVELS), rtol=1e-6, atol=1e-6
    )


def test_each_fantasy_is_conditioned_on_by_itself(model: ScaleMixtureProcess) -> None:
    X_new = inputs(2, seed=7)
    sampler = IIDNormalSampler(torch.Size([3]), seed=0)
    together = model.fantasize(X_new, sampler).posterior(inputs(4))
    fantasies = sampler(model.posterior(X_new, observation_noise=True))
    for i in range(3):
        alone = model.condition_on_observations(X_new, fantasies[i]).posterior(inputs(4))
        torch.testing.assert_close(together.mean[i], alone.mean)
        torch.testing.assert_close(together.variance[i], alone.variance)
        torch.testing.assert_close(together.quantile(LEVELS)[:, i], alone.quantile(LEVELS))


def test_drawn_functions_have_the_posteriors_quantiles(model: ScaleMixtureProcess) -> None:
    k, new = 4000, inputs(3)
    with torch.no_grad():
        values = model.sample_functions(k, seed=1)(new)
        quantiles = model.quantile(new, LEVELS)
    below = (values[:, None] < quantiles).double().mean(dim=0)  # levels x 3 x 1
    error = (below - LEVELS[:, None, None]).abs() / (LEVELS * (1 - LEVELS) / k).sqrt()[
        :, None, None
    ]
    assert error.max() < 6.0


def test_samples_and_quantiles_are_differentiable(model: ScaleMixtureProcess) -> None:
    X = inputs(3).requires_grad_()
    base = torch.randn(4, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def values(X: Tensor) -> tuple[Tensor, Tensor]:
        posterior = model.posterior(X)
        samples = posterior.rsample_from_base_samples(torch.Size([4]), base)
        return samples, posterior.quantile(LEVELS)

    torch.autograd.gradcheck(values, X, eps=1e-6, atol=1e-4, rtol=1e-3)


def test_a_saved_model_predicts_identically(model: ScaleMixtureProcess, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = load_surrogate(tmp_path / "model")
    X = inputs(3)
    assert torch.equal(loaded.quantile(X, LEVELS), model.quantile(X, LEVELS))
    functions = loaded.sample_functions(2, seed=0), model.sample_functions(2, seed=0)
    assert torch.equal(functions[0](X), functions[1](X))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_constant_outcomes_and_single_points_are_predicted(law: str, dtype: torch.dtype) -> None:
    X = inputs(6).to(dtype)
    for n, value in ((6, 3.0), (1, -2e5)):
        model = build(X[:n], torch.full((n, 1), value, dtype=dtype), law=law)
        posterior = model.posterior(inputs(3).to(dtype), observation_noise=True)
        assert posterior.mean.dtype == posterior.variance.dtype == dtype
        assert ((posterior.mean - value).abs() < 0.5).all()
        assert (posterior.variance > 0).all()
        assert torch.isfinite(posterior.variance).all()
        assert torch.isfinite(posterior.rsample(torch.Size([5]))).all()


# ---- configuration and use -----------------------------------------------------------------------
def test_the_configuration_decides_law_and_tail() -> None:
    X, Y = data()
    heavy = build(X, Y, law="burr", df=4.0, burr_k=2.0).gp.scale_law()
    assert heavy.k.item() == 2.0
    assert isinstance(build(X, Y, df=4.0).gp.scale_law(), InverseGamma)
    assert isinstance(build(X, Y, law="burr").posterior(inputs(2)), ScaleGridPosterior)
    with pytest.raises(InputError, match=r"law must be one of .* did you mean 'log-normal'"):
        NNGPTConfig(law="lognormal")
    with pytest.raises(InputError, match=r"burr_k must be in \[0.7, 10\]"):
        NNGPTConfig(burr_k=0.5)


def test_no_law_lacks_the_mean_that_scales_it() -> None:
    """Of a Burr law, c k > 1, at the ends of the configuration's ranges."""
    X, Y = data()
    for df in (2.01, 1e6):
        for k in (0.7, 10.0):
            law = build(X, Y, law="burr", df=df, burr_k=k).gp.scale_law()
            assert law.c * law.k > 1


def test_the_amplitude_is_the_scales(model: ScaleMixtureProcess) -> None:
    gp = model.gp
    assert gp.covar_module.output_variance.item() == 1.0
    assert not any("output_variance" in n for n, p in gp.named_parameters() if p.requires_grad)
    assert not any("output_variance" in name for name, *_ in gp.named_priors())


@pytest.mark.parametrize("config", [{"law": "burr"}, {"law": "log-normal", "shared_scale": True}])
def test_the_loop_proposes_points_in_batches(config: dict[str, object]) -> None:
    space = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])
    X, Y = data(m=2)
    proposal = propose(
        space,
        X,
        Y,
        objectives=[Objective(f"y{i}", "minimize") for i in range(2)],
        surrogate="nngp_t",
        config=config,
        acquisition=AcquisitionConfig(mc_samples=16, num_restarts=1, raw_samples=8, maxiter=10),
        q=2,
    )
    assert proposal.X.shape == (2, 2)
    assert not torch.equal(*proposal.X)
