"""Every surrogate follows its data to a GPU, and predicts there what it predicts on the CPU; points
are proposed there, by the loop and in campaigns."""

import pytest
import torch

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.ax_bridge import AxBridge
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.design import sobol_design
from bo_surrogates.kernels.infinite_width import NTKKernel
from bo_surrogates.kernels.recursion import GPU_TILING
from bo_surrogates.loop import propose
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Space
from bo_surrogates.surrogates import SURROGATES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

X = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (3 * X).sin().sum(-1, keepdim=True)
TEST = torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
BOUNDS = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", list(SURROGATES))
def test_a_model_built_on_the_gpu_predicts_and_differentiates_there(name):
    model = SURROGATES[name].build(X.cuda(), Y.cuda(), bounds=BOUNDS.cuda(), seed=0)
    Z = TEST.cuda().requires_grad_()
    posterior = model.posterior(Z)
    assert posterior.mean.is_cuda
    (gradient,) = torch.autograd.grad(posterior.mean.sum() + posterior.variance.sum(), Z)
    assert torch.isfinite(gradient).all()
    assert model.sample_functions(4, seed=0)(TEST.cuda()).is_cuda
    # Reductions differ in their order, and training amplifies it: agreement to a part of Y's range.
    reference = SURROGATES[name].build(X, Y, bounds=BOUNDS, seed=0).posterior(TEST).mean
    assert (posterior.mean.cpu() - reference).abs().max() < 0.1 * (Y.max() - Y.min())


@pytest.mark.parametrize("columns", [GPU_TILING.rows, GPU_TILING.rows + 300])
def test_matrices_cut_into_the_gpus_blocks_are_those_of_the_cpu(columns):
    """A square one by its half, and a wider one; with their gradient in the inputs' scales."""
    generator = torch.Generator().manual_seed(2)
    x1 = torch.rand(GPU_TILING.rows + 100, 3, generator=generator, dtype=torch.float64)
    x2 = x1 if columns == GPU_TILING.rows else torch.rand(columns, 3, dtype=torch.float64)
    found = {}
    for device in ("cpu", "cuda"):
        kernel = NTKKernel("erf", 2, 3).double().to(device)
        a = x1.to(device)
        K = kernel.forward(a, a if x2 is x1 else x2.to(device))
        (gradient,) = torch.autograd.grad(K.cos().mean(), kernel.log_input_scale)
        found[device] = K.detach().cpu(), gradient.cpu()
    for ours, expected in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", list(SURROGATES))
def test_a_point_is_proposed_on_the_gpu(name):
    space = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])
    proposal = propose(space, X.cuda(), Y.cuda(), objectives=[Objective("y")], surrogate=name)
    assert proposal.X.is_cuda
    space.validate(space.decode(proposal.X[0]))


FLOATS = Space([Float("a", 0.0, 1.0), Float("b", 0.1, 10.0, log=True)])
MIXED = Space(
    [Float("a", 0.0, 1.0), Float("b", 0.0, 1.0), Int("n", 1, 9), Choice("c", ("x", "y", "z"))],
    constraints=[LinearConstraint({"a": 1.0, "b": 1.0}, 1.5)],
)
FIDELITY = Space([Float("a", 0.0, 1.0), Float("s", 0.1, 1.0, fidelity=True)])
ASKED = {
    "trust_region": (FLOATS, 1, {"trust_region": True}),
    "thompson": (MIXED, 1, {"name": "thompson"}),
    "qucb": (MIXED, 1, {"name": "qucb"}),
    "qlogei": (MIXED, 1, {"name": "qlogei"}),
    "integrated_variance": (FLOATS, 1, {"name": "integrated_variance"}),
    "qlognehvi": (MIXED, 2, {"name": "qlognehvi"}),
    "qlognparego": (FLOATS, 2, {"name": "qlognparego"}),
    "fidelity": (FIDELITY, 1, {}),
}


@pytest.fixture(params=list(ASKED))
def asked(request):
    """A space, 15 points of it, the outcomes there, what is wanted, and an acquisition function."""
    space, objectives, settings = ASKED[request.param]
    X = sobol_design(space, 15, 0)
    a = space.to_model(X)[:, 0]
    Y = torch.stack([(5 * a).sin(), a.square(), a], dim=-1)[:, [*range(objectives), 2]]
    constraints = () if request.param == "qucb" else (OutcomeConstraint("w", "<=", 0.8),)
    wanted = [Objective(name, "maximize") for name in "uv"[:objectives]]
    budget = {"mc_samples": 32, "num_restarts": 2, "raw_samples": 16, "maxiter": 10}
    return (
        space, X, Y if constraints else Y[:, :1], wanted, constraints,
        AcquisitionConfig(**budget, **settings),
    )  # fmt: skip


@pytest.mark.parametrize("surrogate", ["gp", "ensemble"])
def test_every_kind_of_proposal_is_made_on_the_gpu(asked, surrogate):
    space, X, Y, objectives, constraints, acquisition = asked
    proposal = propose(
        space, X.cuda(), Y.cuda(), objectives=objectives, constraints=constraints,
        surrogate=surrogate, q=2, acquisition=acquisition, X_pending=X[:1].cuda(),
    )  # fmt: skip
    assert proposal.X.is_cuda
    for x in proposal.X:
        space.validate(space.decode(x))


@pytest.mark.parametrize("surrogate", ["gp", "ensemble"])
def test_a_campaign_asks_on_the_gpu(asked, surrogate):
    space, X, Y, objectives, constraints, acquisition = asked
    spec = CampaignSpec(
        "c", space, tuple(objectives), constraints, surrogate=surrogate, acquisition=acquisition,
        initial=15, device="cuda",
    )  # fmt: skip
    trials = []
    for i, (x, y) in enumerate(zip(X, Y.tolist(), strict=True)):
        results = {m: Measurement(v) for m, v in zip(spec.metrics, y, strict=True)}
        trials.append(Trial(i, space.decode(x), "completed", "sobol", results))
    bridge = AxBridge(spec)
    running = [
        Trial(15 + i, s.parameters, "running", s.origin)
        for i, s in enumerate(bridge.ask(2, trials))
    ]
    for suggestion in bridge.ask(1, [*trials, *running]):
        assert suggestion.origin == surrogate
        space.validate(suggestion.parameters)
    assert bridge._adapter.generator.surrogate.Xs[0].is_cuda
