"""Every surrogate follows its data to a GPU, and predicts there what it predicts on the CPU."""

import pytest
import torch

from bo_surrogates.kernels.infinite_width import NTKKernel
from bo_surrogates.kernels.recursion import GPU_TILING
from bo_surrogates.loop import propose
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
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
