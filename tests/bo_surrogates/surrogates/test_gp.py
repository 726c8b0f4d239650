"""What is `gp`'s own: BoTorch's model underneath, the published priors, outputs, copies."""

import pytest
import torch
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.models import ModelList, ModelListGP, SingleTaskGP
from botorch.models.transforms import Normalize, Standardize

from bo_surrogates.acquisition.defaults import make_sampler
from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES, TrainingData, load_surrogate
from bo_surrogates.surrogates.gp import GPConfig, one_hot_columns

BOUNDS = torch.tensor([[-1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
UNIT = torch.rand(14, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = BOUNDS[0] + UNIT * (BOUNDS[1] - BOUNDS[0])
Y = torch.stack([(3 * UNIT).sin().sum(-1), 100 + 50 * UNIT[:, 0] ** 2], dim=-1)
TEST = BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * torch.rand(
    9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
)


def build(kernel="rbf", Y=Y, Yvar=None):
    return SURROGATES["gp"].build(X, Y, Yvar, bounds=BOUNDS, config={"kernel": kernel}, seed=0)


@pytest.fixture(scope="module", params=["rbf", "matern"])
def two_outputs(request):
    return build(request.param)


def test_the_default_is_botorchs_own_model():
    ours = build(Y=Y[:, :1])
    plain = SingleTaskGP(
        X, Y[:, :1], input_transform=Normalize(2, bounds=BOUNDS), outcome_transform=Standardize(1)
    )
    plain.load_state_dict(ours.state_dict())
    plain.likelihood.noise = ours.likelihood.noise  # of which ours has the logarithm
    plain.eval()
    mine, theirs = ours.posterior(TEST), plain.posterior(TEST)
    torch.testing.assert_close(mine.mean, theirs.mean, atol=1e-9, rtol=0)
    torch.testing.assert_close(mine.variance, theirs.variance, atol=1e-9, rtol=0)


def test_the_matern_kernel_has_the_published_priors():
    model = build("matern", Y[:, :1])
    priors = {name: prior for name, _, prior, *_ in model.named_priors()}
    expected = {
        "covar_module.outputscale_prior": (2.0, 0.15),
        "covar_module.base_kernel.lengthscale_prior": (3.0, 6.0),
        "likelihood.noise_covar.noise_prior": (1.1, 0.05),
    }
    found = {
        name: (float(priors[name].concentration), float(priors[name].rate)) for name in expected
    }
    for name, parameters in expected.items():
        assert found[name] == pytest.approx(parameters)
    assert model.covar_module.base_kernel.nu == 2.5
    assert model.covar_module.base_kernel.ard_num_dims == 2


@pytest.mark.parametrize("Yvar", [None, torch.full_like(Y, 0.01)], ids=["inferred", "known"])
@pytest.mark.parametrize("kernel", ["rbf", "matern"])
def test_a_subset_of_outputs_predicts_as_the_whole(kernel, Yvar):
    model = build(kernel, Yvar=Yvar)
    whole, part = model.posterior(TEST), model.subset_output([1]).posterior(TEST)
    torch.testing.assert_close(part.mean[:, 0], whole.mean[:, 1], atol=1e-8, rtol=0)
    torch.testing.assert_close(part.variance[:, 0], whole.variance[:, 1], atol=1e-8, rtol=1e-6)


def test_drawn_functions_outlive_a_change_of_the_model(two_outputs):
    functions = two_outputs.sample_functions(3, seed=0)
    before = functions(TEST)
    mean = two_outputs.mean_module.raw_constant
    kept = mean.detach().clone()
    with torch.no_grad():
        mean += 1.0
    after = functions(TEST)
    with torch.no_grad():
        mean.copy_(kept)
    assert torch.equal(before, after)


def test_a_conditioned_model_is_not_saved_without_its_observations(two_outputs, tmp_path):
    more = two_outputs.condition_on_observations(TEST[:2], Y[:2])
    with pytest.raises(InputError, match="conditioned on further observations"):
        more.save(tmp_path / "m.safetensors")
    two_outputs.save(tmp_path / "m.safetensors")  # the model it came from is as it was


# ---- kernels -----------------------------------------------------------------------------------
UNIT_BOUNDS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 2.0]], dtype=torch.float64)
MIXED = torch.rand(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
MIXED[:, 2] = torch.arange(30) % 3
LEVEL = torch.tensor([0.0, 4.0, 1.0], dtype=torch.float64)
SUM = torch.sin(5 * MIXED[:, :1]) + MIXED[:, 1:2].square() + LEVEL[MIXED[:, 2].long()][:, None]
CONFIGS = {
    "matern32": {"kernel": "matern32"},
    "matern52": {"kernel": "matern52"},
    "additive": {"kernel": "additive"},
    "hamming": {"categories": "hamming"},
    "hamming matern": {"categories": "hamming", "kernel": "matern32"},
    "noise": {"noise": "input-dependent"},
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def configured(request):
    Y = torch.cat([SUM, SUM.flip(0)], dim=-1)
    return SURROGATES["gp"].build(
        MIXED, Y, bounds=UNIT_BOUNDS, categorical_features={2: 3},
        config=CONFIGS[request.param], seed=0,
    )  # fmt: skip


def test_drawn_functions_have_the_posteriors_moments(configured):
    """Of every kernel and noise: means within six standard errors, variances within a half."""
    new = MIXED[:6] + torch.tensor([0.03, -0.02, 0.0]) * (0.5 - MIXED[:6])
    posterior = configured.posterior(new)
    with torch.no_grad():
        values = configured.sample_functions(400, seed=0)(new)
    deviation = posterior.variance.sqrt()
    assert ((values.mean(dim=0) - posterior.mean).abs() < 6 * deviation / 400**0.5).all()
    ratio = values.var(dim=0) / posterior.variance
    # Seven standard errors, and what a thousand Fourier features are off by.
    assert ((ratio - 1).abs() < 7 * (2 / 400) ** 0.5 + 0.1).all()


def test_outputs_of_every_kernel_can_be_selected(configured):
    whole = configured.posterior(MIXED[:5], observation_noise=True)
    part = configured.subset_output([1]).posterior(MIXED[:5], observation_noise=True)
    torch.testing.assert_close(part.mean[:, 0], whole.mean[:, 1], atol=1e-8, rtol=0)
    torch.testing.assert_close(part.variance[:, 0], whole.variance[:, 1], atol=1e-8, rtol=1e-6)


def test_every_kernel_is_saved_whole(configured, tmp_path):
    configured.save(tmp_path / "m.safetensors")
    loaded = load_surrogate(tmp_path / "m.safetensors")
    for noise in (False, True):
        before, after = (m.posterior(MIXED, observation_noise=noise) for m in (configured, loaded))
        assert torch.equal(before.mean, after.mean)
        assert torch.equal(before.variance, after.variance)
    draws = [m.sample_functions(2, seed=3)(MIXED) for m in (configured, loaded)]
    assert torch.equal(*draws)


def test_conditioning_equals_a_model_of_all_data(configured):
    """Refitted to the same hyper-parameters, the data in one go or in two give one posterior."""
    new = MIXED[:2] + torch.tensor([0.01, 0.02, 0.0], dtype=torch.float64)
    Y_new = torch.ones(2, 2, dtype=torch.float64)
    posterior = configured.condition_on_observations(new, Y_new).posterior(MIXED[3:6])
    # The formula, by dense linear algebra, in standardized units.
    joint = torch.cat([MIXED, new, MIXED[3:6]])
    with torch.no_grad():
        inputs = configured.transform_inputs(joint)
        K = configured.covar_module(inputs).to_dense().expand(2, -1, -1)
        mean = configured.mean_module(inputs[None].expand(2, -1, -1))
        noise = configured.likelihood.noise_covar(
            inputs[None, :32].expand(2, -1, -1), shape=torch.Size([2, 32])
        ).to_dense()
        Y_all = torch.cat([torch.cat([SUM, SUM.flip(0)], dim=-1), Y_new])
        Y_all = configured.outcome_transform(Y_all)[0].mT
        gain = torch.linalg.solve(K[:, :32, :32] + noise, K[:, :32, 32:]).mT
        expected = mean[:, 32:] + (gain @ (Y_all - mean[:, :32]).unsqueeze(-1)).squeeze(-1)
        expected = configured.outcome_transform.untransform(expected.mT)[0]
    torch.testing.assert_close(posterior.mean, expected, atol=1e-5, rtol=0)


def test_an_additive_function_is_found_from_few_points_and_extrapolated():
    """Ten points on two edges of the square tell an additive function on all of it."""
    edge = torch.linspace(0, 1, 6, dtype=torch.float64)
    zero = torch.zeros_like(edge)
    X = torch.cat([torch.stack([edge, zero], -1), torch.stack([zero, edge], -1)[1:]])
    f = lambda X: torch.sin(3 * X[:, :1]) + 2 * X[:, 1:].square()  # noqa: E731
    test = torch.rand(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    error = {}
    for kernel in ("additive", "rbf"):
        model = SURROGATES["gp"].build(X, f(X), config={"kernel": kernel}, seed=0)
        error[kernel] = (model.posterior(test).mean - f(test)).square().mean().sqrt()
    assert error["additive"] < 0.05 * f(test).std()
    assert error["additive"] < 0.3 * error["rbf"]


def test_the_components_of_an_additive_posterior_add_up_to_it():
    model = SURROGATES["gp"].build(UNIT, Y[:, :1], config={"kernel": "additive"}, seed=0)
    new = torch.rand(9, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = model.posterior(new).mean
    with torch.no_grad():
        weights = model.make_prediction_strategy().mean_cache
        parts = model.covar_module.components(new, model.train_inputs[0]) @ weights
        total = parts.sum(dim=0) + model.mean_module(new)
        total = model.outcome_transform.untransform(total.unsqueeze(-1))[0]
    torch.testing.assert_close(total, expected)
    assert parts.shape == (3, 9)


def test_additive_functions_are_continued_as_constants_outside_the_bounds():
    model = SURROGATES["gp"].build(UNIT, Y[:, :1], config={"kernel": "additive"}, seed=0)
    outside = torch.tensor([[1.3, 0.5], [-0.1, 2.0]], dtype=torch.float64)
    assert torch.equal(model.posterior(outside).mean, model.posterior(outside.clamp(0, 1)).mean)


def test_hamming_categories_are_refused_with_a_kernel_that_has_none():
    with pytest.raises(InputError, match="hamming.*additive"):
        GPConfig(kernel="additive", categories="hamming")


def test_the_columns_of_categories_are_found_whatever_their_order():
    X = torch.tensor([[0.1, 2.0, 0.3, 3.0], [0.4, 1.0, 0.6, 0.0]], dtype=torch.float64)
    data = TrainingData(X, X[:, :1], categorical_features={3: 4, 1: 3})
    assert one_hot_columns(data.input_transform()) == [[1, 2, 3], [5, 6, 7, 8]]
    assert one_hot_columns(None) == []
    coded = data.input_transform()(X)
    expected = [0.1, 0, 0, 1, 0.3, 0, 0, 0, 1]
    assert coded[0].tolist() == pytest.approx(expected)


# ---- noise and rounding ------------------------------------------------------------------------
def test_noise_that_depends_on_the_input_is_found():
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(150, 1, generator=generator, dtype=torch.float64)
    stdv = lambda X: 0.05 + 0.6 * X  # noqa: E731
    Y = torch.sin(6 * X) + stdv(X) * torch.randn(150, 1, generator=generator, dtype=torch.float64)
    test = torch.linspace(0.05, 0.95, 19, dtype=torch.float64).unsqueeze(-1)
    error = {}
    for noise in ("constant", "input-dependent"):
        model = SURROGATES["gp"].build(X, Y, config={"noise": noise}, seed=0)
        with torch.no_grad():
            with_noise = model.posterior(test, observation_noise=True).variance
            found = (with_noise - model.posterior(test).variance).sqrt()
        error[noise] = (found / stdv(test)).log().abs().mean().item()
    # A local standard deviation from 150 points, some 30 in reach, is known to about 15 %.
    assert error["input-dependent"] < 0.35
    assert error["input-dependent"] < 0.6 * error["constant"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.filterwarnings("ignore:A not p.d.")
@pytest.mark.parametrize("distance", [0.0, 1e-4])
@pytest.mark.parametrize("kernel", ["rbf", "additive"])
def test_coincident_points_break_nothing(kernel, distance, dtype):
    """Forty pairs of points at a distance, without noise in the data."""
    half = torch.rand(40, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    X = torch.cat([half, half + distance]).clamp(0, 1).to(dtype)
    model = SURROGATES["gp"].build(X, X.sum(-1, keepdim=True), config={"kernel": kernel}, seed=0)
    Z = torch.cat([X[:3], X[:3]]).requires_grad_()
    posterior = model.posterior(Z)
    sample = posterior.rsample(torch.Size([4]))
    (gradient,) = torch.autograd.grad(sample.sum() + posterior.variance.sum(), Z)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(model.sample_functions(2, seed=0)(X)).all()
    assert model.diagnostics.converged
    assert 0 <= model.diagnostics.values["jitter"] <= 0.1


@pytest.mark.parametrize("name", ["gp", "nngp", "tp"])
def test_single_outputs_serve_in_a_list_of_models(name):
    """BoTorch's hypervolume acquisition over models of one entry an outcome."""
    config = {} if name != "nngp" else {"depth": 1}
    models = [
        SURROGATES[name].build(X, Y[:, [i]], bounds=BOUNDS, config=config, seed=0) for i in (0, 1)
    ]
    exact = name != "tp"
    together = ModelListGP(*models) if exact else ModelList(*models)
    posterior = together.posterior(TEST)
    for i, model in enumerate(models):
        torch.testing.assert_close(posterior.mean[:, i], model.posterior(TEST).mean[:, 0])
    function = qLogNoisyExpectedHypervolumeImprovement(
        together,
        ref_point=Y.amin(dim=0).tolist(),
        X_baseline=X[:6],
        sampler=make_sampler(together, X, 4, seed=0),
    )
    Z = TEST[:4].unsqueeze(1).requires_grad_()
    value = function(Z)
    (gradient,) = torch.autograd.grad(value.sum(), Z)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert value.std() > 0
