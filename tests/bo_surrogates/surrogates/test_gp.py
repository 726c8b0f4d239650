"""What is `gp`'s own: BoTorch's model underneath, the published priors, outputs, copies."""

import pytest
import torch
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize

from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES

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
