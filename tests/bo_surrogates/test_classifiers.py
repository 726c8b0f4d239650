"""Classifiers of wide and deep networks: their limits with depth, and Bayes' rule."""

import itertools

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from bo_surrogates.classifiers import NOISES, DeepKernelClassifier, HilbertClassifier
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.kernels.singular import HermiteDual, ReLUDual, log_nngp, optimal_dual

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(120, 2, generator=GENERATOR, dtype=torch.float64)
Y = ((X - 0.5).norm(dim=-1) < 0.35) ^ (torch.rand(120, generator=GENERATOR) < 0.05)
Z = torch.rand(400, 2, generator=GENERATOR, dtype=torch.float64)
CLASSIFIERS = {
    "hilbert": HilbertClassifier,
    "nngp": DeepKernelClassifier,
    "ntk": lambda **options: DeepKernelClassifier(kernel="ntk", **options),
}


def agreement(a, b):
    return (a == b).double().mean().item()


@pytest.fixture(params=list(CLASSIFIERS))
def make(request):
    return CLASSIFIERS[request.param]


@pytest.mark.parametrize(
    "model",
    [
        HilbertClassifier(),
        *(DeepKernelClassifier(12, kernel=k, noise=1e-6) for k in ("nngp", "ntk")),
    ],
    ids=list(CLASSIFIERS),
)
def test_labels_of_the_data_are_repeated(model):
    """By shallow networks only up to their noise: they are smooth."""
    model.fit(X, Y)
    assert torch.equal(model.predict(X), Y)
    certain = torch.where(Y, model.probability(X), 1 - model.probability(X))
    assert certain.min() > 0.99


def test_probabilities_are_batched_and_of_the_inputs_type(make):
    model = make().fit(X.float(), Y)
    batch = Z.reshape(4, 50, 2, 2).float()
    p = model.probability(batch)
    assert p.shape == (4, 50, 2)
    assert p.dtype == torch.float32
    assert ((p >= 0) & (p <= 1)).all()
    torch.testing.assert_close(p.reshape(-1), model.probability(Z.float()))
    both = model.predict_proba(batch)
    torch.testing.assert_close(both.sum(dim=-1), torch.ones(4, 50, 2))
    torch.testing.assert_close(both[..., 1], p)


def test_gradients_are_right_and_finite_at_the_data(make):
    model = make().fit(X, Y)
    assert torch.autograd.gradcheck(model.probability, (Z[:4].clone().requires_grad_(),))
    at_data = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.probability(at_data).sum(), at_data)
    assert torch.isfinite(gradient).all()


def test_bounds_scale_the_inputs(make):
    bounds = torch.tensor([[-5.0, 100.0], [5.0, 300.0]], dtype=torch.float64)
    scaled = make(bounds=bounds).fit(bounds[0] + X * (bounds[1] - bounds[0]), Y)
    found = scaled.probability(bounds[0] + Z * (bounds[1] - bounds[0]))
    torch.testing.assert_close(found, make().fit(X, Y).probability(Z))


def test_hilberts_limits_are_the_nearest_neighbour_and_the_share_of_labels():
    model = HilbertClassifier(exponent=400.0).fit(X, Y)
    nearest = KNeighborsClassifier(1).fit(model.embed(X), Y)
    assert agreement(model.predict(Z), torch.from_numpy(nearest.predict(model.embed(Z)))) > 0.99
    flat = HilbertClassifier(exponent=1e-6).fit(X, Y).probability(Z)
    torch.testing.assert_close(flat, Y.double().mean().expand(400), rtol=0, atol=1e-4)


def test_hilberts_probability_is_the_weighted_share_of_labels():
    model = HilbertClassifier(exponent=1.7).fit(X, Y)
    distance = torch.cdist(
        model.embed(Z), model.embed(X), compute_mode="donot_use_mm_for_euclid_dist"
    )
    weights = distance**-1.7
    expected = weights @ Y.double() / weights.sum(dim=-1)
    torch.testing.assert_close(model.probability(Z), expected, rtol=1e-6, atol=1e-6)


def test_leave_one_out_is_fitting_without_the_point():
    model = HilbertClassifier(exponent=2.0).fit(X, Y)
    (score,) = model.leave_one_out([2.0])
    logs = []
    for i in range(len(X)):
        rest = torch.arange(len(X)) != i
        p = HilbertClassifier(exponent=2.0).fit(X[rest], Y[rest]).probability(X[i : i + 1])
        right = (p if Y[i] else 1 - p).clamp(0.5 / 120, 1 - 0.5 / 120)
        logs.append(right.log())
    assert score.item() == pytest.approx(torch.cat(logs).mean().item(), abs=1e-9)


def test_a_learnt_exponent_is_the_best_of_those_tried():
    model = HilbertClassifier().fit(X, Y)
    grid = [0.5 * i for i in range(1, 13)]
    scores = model.leave_one_out(grid)
    assert model.alpha == pytest.approx(grid[int(scores.argmax())])


def test_deep_networks_without_linear_part_are_the_nearest_neighbour():
    model = DeepKernelClassifier(depth=20, dual=HermiteDual([0, 0, 1]), noise=1e-6).fit(X, Y)
    nearest = KNeighborsClassifier(1).fit(model.embed(X), Y)
    expected = torch.from_numpy(nearest.predict(model.embed(Z)))
    assert agreement(model.predict(Z), expected) > 0.98


def test_deep_networks_with_a_constant_part_are_the_majority():
    majority = (Y.double().mean() > 0.5).expand(len(Z))
    model = DeepKernelClassifier(depth=60, dual=HermiteDual([0.3, 0.2, 0.0, 0.5]), noise=1e-6).fit(
        X, Y
    )
    assert torch.equal(model.predict(Z), majority)
    shares = [
        agreement(
            DeepKernelClassifier(depth, ReLUDual(), "ntk", noise=1e-10).fit(X, Y).predict(Z),
            majority,
        )
        for depth in (10, 300)
    ]
    assert shares[1] > shares[0]


def test_deep_networks_with_the_optimal_activation_are_the_singular_kernel():
    deep = DeepKernelClassifier(depth=40, dual=optimal_dual(2), noise=1e-10).fit(X, Y)
    hilbert = HilbertClassifier("dimension").fit(X, Y)
    assert hilbert.alpha == 2.0
    assert agreement(deep.predict(Z), hilbert.predict(Z)) > 0.995
    shallow = DeepKernelClassifier(depth=1, dual=optimal_dual(2), noise=1e-10).fit(X, Y)
    assert agreement(deep.predict(Z), hilbert.predict(Z)) > agreement(
        shallow.predict(Z), hilbert.predict(Z)
    )


def test_a_gaussian_process_of_the_same_kernel_gives_the_probability():
    model = DeepKernelClassifier(depth=2, noise=0.1).fit(X, Y)
    S = [(model.embed(a) @ model.embed(b).mT).clamp(0, 1) for a, b in ((X, X), (Z, X))]
    for _ in range(2):
        S = [optimal_dual(2)(t) for t in S]
    K = S[0] + 0.1 * torch.eye(120)
    y = 2.0 * Y.double() - 1.0
    mean = S[1] @ torch.linalg.solve(K, y)
    v = y @ torch.linalg.solve(K, y) / 120
    variance = 1.1 - (S[1] * torch.linalg.solve(K, S[1].mT).mT).sum(dim=-1)
    expected = torch.distributions.Normal(0.0, 1.0).cdf(mean / (v * variance).sqrt())
    torch.testing.assert_close(model.probability(Z), expected, rtol=0, atol=1e-6)


def test_depth_noise_and_variance_maximize_the_evidence():
    model = DeepKernelClassifier().fit(X, Y)
    t = (model.embed(X) @ model.embed(X).mT).clamp(0, 1)
    y = 2.0 * Y.double() - 1.0

    def evidence(depth, noise, variance):
        K = variance * (log_nngp(optimal_dual(2), t, depth).exp() + noise * torch.eye(120))
        return torch.distributions.MultivariateNormal(torch.zeros(120).double(), K).log_prob(y)

    best = evidence(model.depth, model.noise, model.variance)
    for depth, noise, factor in itertools.product((1, 3, 8, 20), NOISES[::3], (1.0, 0.9, 1.1)):
        assert evidence(depth, noise, factor * model.variance) <= best + 1e-6
    assert NOISES[0] < model.noise < NOISES[-1]  # 5 % of the labels are wrong


def test_the_dimension_as_exponent_comes_nearer_to_bayes_than_its_neighbours():
    """Two Dirichlet classes on the triangle, whose Bayes rule is known (arXiv 2204.14126).

    Accuracies on 3 x 2000 points have a standard error of 0.006 at most, differences between
    rules on the same points less: 0.02 is not chance.
    """
    hits = {"bayes": 0.0, "hilbert": 0.0, "nearest": 0.0, "flat": 0.0}
    first, second = torch.tensor([3.0, 1.0, 2.0]).double(), torch.tensor([1.0, 2.0, 2.0]).double()
    torch.manual_seed(0)
    one, two = (torch.distributions.Dirichlet(a) for a in (first, second))
    for _ in range(3):
        labels = torch.rand(2800) < 0.4
        x = torch.where(labels.unsqueeze(-1), one.sample((2800,)), two.sample((2800,)))
        train, test, y, truth = x[:800, :2], x[800:, :2], labels[:800], labels[800:]
        odds = one.log_prob(x[800:]) - two.log_prob(x[800:]) + torch.tensor(0.4 / 0.6).log()
        rules = {
            "bayes": odds > 0,
            "hilbert": HilbertClassifier("dimension").fit(train, y).predict(test),
            "nearest": HilbertClassifier(200.0).fit(train, y).predict(test),
            "flat": HilbertClassifier(0.2).fit(train, y).predict(test),
        }
        for name, rule in rules.items():
            hits[name] += agreement(rule, truth) / 3
    assert hits["bayes"] > hits["hilbert"] > hits["nearest"] + 0.02
    assert hits["hilbert"] > hits["flat"] + 0.02
    assert hits["bayes"] - hits["hilbert"] < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HilbertClassifier(exponent=-1.0), "exponent"),
        (lambda: HilbertClassifier(exponent="best"), "exponent"),
        (lambda: DeepKernelClassifier(depth=0), "depth"),
        (lambda: DeepKernelClassifier(kernel="rbf"), "kernel"),
        (lambda: DeepKernelClassifier(noise=0.0), "noise"),
        (lambda: HilbertClassifier(bounds=torch.tensor([[0.0, 1.0], [1.0, 1.0]])), "bounds"),
        (lambda: HilbertClassifier().fit(X, Y[:5]), "y must hold"),
        (lambda: HilbertClassifier().fit(X, 2.0 * Y), "y must hold"),
        (lambda: HilbertClassifier().fit(X * 2.0, Y), "within the bounds"),
        (lambda: HilbertClassifier().fit(X[0], Y), "n x d"),
        (lambda: HilbertClassifier().fit(X[[0, 0]], torch.tensor([0, 1])), "differ"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_an_unfitted_classifier_says_so(make):
    with pytest.raises(RunError, match="fit"):
        make().probability(X)


def test_one_class_is_certain_and_repeated_points_are_one(make):
    always = make().fit(X[[0, 0, 1]], torch.ones(3))
    assert (always.probability(Z) > 0.5).all()
