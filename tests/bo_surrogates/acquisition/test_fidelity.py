"""The choice of a fidelity: information by conditioning, per cost, and what makes it the target."""

import pytest
import torch

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.fidelity import (
    FidelityChoice,
    baseline_points,
    choose_fidelity,
    information,
)
from bo_surrogates.errors import SpaceExhausted
from bo_surrogates.fidelity import FidelityConfig
from bo_surrogates.loop import fit, propose
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, Space

FAST = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20)
SPACE = Space([Float("x", 0.0, 1.0), Float("s", 0.0, 1.0, fidelity=True)])
COSTS = FidelityConfig(fixed_cost=0.1).checked(SPACE)
LOSS = [Objective("loss")]


def measure(X, bias=0.3):
    """Lower fidelities are off by a smooth function of the point."""
    x, s = X[:, [0]], X[:, [1]]
    return torch.sin(6 * x) + bias * (1 - s) * torch.cos(9 * x)


def points(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    X[:, 0] *= 0.6
    X[::3, 1] = 1.0
    return X


TRIED = points(12)
NONE = TRIED[:0]
AT = torch.tensor([0.9, 1.0], dtype=torch.float64)  # where little is known


@pytest.fixture(scope="module")
def model():
    return fit(SPACE, TRIED, measure(TRIED), seed=0)


def asked_at(*fidelities):
    return torch.stack([AT, *(torch.tensor([0.9, s], dtype=torch.float64) for s in fidelities)])


def test_information_is_the_variance_that_conditioning_takes_away(model):
    X = torch.stack([*asked_at(0.0, 0.4, 0.9)[1:], AT])
    found = information(model, SPACE, X, NONE)
    before = model.posterior(AT.unsqueeze(0)).variance.item()
    for x, share in zip(X, found.tolist(), strict=True):
        after = model.condition_on_observations(x.unsqueeze(0), measure(x.unsqueeze(0)))
        variance = after.posterior(AT.unsqueeze(0)).variance.item()
        assert share == pytest.approx(1 - variance / before, abs=1e-4)


def test_what_is_running_is_known_already(model):
    running = torch.tensor([[0.9, 0.2], [0.8, 1.0]], dtype=torch.float64)
    X = torch.stack([torch.tensor([0.9, 0.3], dtype=torch.float64), AT])
    after = model.condition_on_observations(running, measure(running))
    expected = information(after, SPACE, X, NONE)
    torch.testing.assert_close(information(model, SPACE, X, running), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["tp", "ensemble", "nngp_t", "vbll"])
def test_every_kind_of_posterior_tells_information(name):
    config = {"ensemble": {"steps": 60}, "vbll": {"steps": 60}}.get(name)
    model = fit(SPACE, TRIED, measure(TRIED), surrogate=name, config=config, seed=0)
    X = torch.stack([*asked_at(0.0, 0.5)[1:], AT])
    shares = information(model, SPACE, X, NONE)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert shares[-1] == shares.max() > 0.3  # nothing tells more of the target than itself


class Draws(torch.nn.Module):
    """A surrogate of a few independent draws: no fidelity tells anything of another."""

    num_outputs = 1

    def posterior(self, X, output_indices=None, observation_noise=False):
        from bo_surrogates.posteriors.ensemble import EnsembleMixturePosterior

        generator = torch.Generator().manual_seed(1)
        values = torch.randn(12, len(X), 1, generator=generator, dtype=torch.float64)
        return EnsembleMixturePosterior(values)


def test_chance_correlations_of_few_draws_are_discounted():
    """The square of a correlation of 12 draws is 1/11 on average: taken away, 0."""
    X = torch.rand(400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    shares = information(Draws(), SPACE, X, NONE)[:-1]
    assert (shares == 0).double().mean() > 0.5
    assert shares.mean() < 0.06  # of the positive parts alone; 0.09 without the correction


# ---- the choice ----------------------------------------------------------------------------------
def choose(model, tried=NONE, config=COSTS, running=NONE, **options):
    known = FidelityChoice(config, tried, running, **options)
    return choose_fidelity(model, SPACE, AT, known)


def test_the_fidelity_with_the_most_information_per_cost_is_chosen(model):
    f = SPACE.fidelity
    values = COSTS.cheaper(f)
    X = torch.stack([*asked_at(*values)[1:], AT])
    ratios = information(model, SPACE, X, NONE) / torch.tensor(
        [COSTS.cost(f, s) for s in (*values, 1.0)], dtype=torch.float64
    )
    ratios[-1] *= 2  # the target is an answer, too
    chosen = choose(model)
    assert chosen.tolist() == X[ratios.argmax()].tolist()
    assert chosen[0] == AT[0]
    assert chosen[1] < 1


def test_where_cheap_is_no_cheaper_the_target_is_asked(model):
    dear = FidelityConfig(fixed_cost=1.01).checked(SPACE)  # the lowest costs half
    assert choose(model, config=dear).tolist() == AT.tolist()


def test_a_point_that_was_seen_cheaply_is_then_asked_at_the_target(model):
    seen = model.condition_on_observations(
        X := asked_at(*COSTS.cheaper(SPACE.fidelity))[1:], measure(X)
    )
    tried = torch.cat([TRIED, AT.unsqueeze(0) + 0.1])  # the last at the target: none is due
    tried[-1, 1] = 1.0
    near = AT.clone()
    near[0] += 1e-3
    known = FidelityChoice(COSTS, tried, NONE)
    assert choose_fidelity(seen, SPACE, near, known).tolist() == near.tolist()


def test_the_target_is_asked_when_it_is_due(model):
    cheap = torch.tensor([[0.1, 0.0]] * 9, dtype=torch.float64)
    assert choose(model, tried=cheap).tolist() == AT.tolist()
    assert choose(model, tried=cheap[:8])[1] < 1
    assert choose(model, tried=cheap[:2], always=(2,)).tolist() == AT.tolist()


def test_no_fidelity_is_asked_twice_at_a_point(model):
    first = choose(model)
    again = choose(model, tried=torch.stack([AT, first]))
    assert again[1] != first[1]


# ---- proposals -----------------------------------------------------------------------------------
def test_the_best_is_measured_against_what_was_measured_at_the_target():
    assert baseline_points(SPACE, TRIED).tolist() == TRIED[::3].tolist()
    cheap = TRIED[TRIED[:, 1] < 1]
    moved = baseline_points(SPACE, cheap)
    assert (moved[:, 1] == 1).all()
    assert moved[:, 0].tolist() == cheap[:, 0].tolist()


def test_a_batch_is_spread_over_points_and_a_fidelity_may_be_held():
    options = {"objectives": LOSS, "acquisition": FAST, "fidelity": COSTS, "seed": 1}
    batch = propose(SPACE, TRIED, measure(TRIED), q=3, **options).X
    assert len(SPACE.to_target(batch).unique(dim=0)) == 3
    held = propose(SPACE, TRIED, measure(TRIED), fixed={"s": 0.25}, **options).X
    assert held[:, 1].tolist() == [0.25]
    at_target = propose(SPACE, TRIED, measure(TRIED), fixed={"s": 1.0}, **options).X
    # The same point: held or not, it is sought by what is expected at the target.
    assert held[0, 0] == at_target[0, 0] == propose(SPACE, TRIED, measure(TRIED), **options).X[0, 0]


@pytest.mark.parametrize("name", ["thompson", "integrated_variance", "qucb", "qlogei"])
def test_every_acquisition_function_takes_a_fidelity(name):
    config = AcquisitionConfig(name, mc_samples=16, num_restarts=1, raw_samples=8, maxiter=5)
    found = propose(
        SPACE, TRIED, measure(TRIED), objectives=LOSS, acquisition=config, fidelity=COSTS,
        X_pending=points(1, 5), seed=1,
    )  # fmt: skip
    assert SPACE.contains(SPACE.decode(found.X[0]))


def test_several_objectives_and_constraints_take_a_fidelity():
    Y = torch.cat([measure(TRIED), -measure(TRIED, 0.1), TRIED[:, :1]], dim=-1)
    found = propose(
        SPACE, TRIED, Y, objectives=[Objective("f"), Objective("g")],
        constraints=[OutcomeConstraint("h", "<=", 0.8)], acquisition=FAST, fidelity=COSTS, seed=1,
    )  # fmt: skip
    assert SPACE.contains(SPACE.decode(found.X[0]))


def test_a_finite_space_is_exhausted_at_the_target_only():
    space = Space([Choice("c", ("a", "b", "d")), Int("n", 1, 9, fidelity=True)])
    X = torch.tensor([[0, 9], [1, 9], [2, 1], [0, 3]], dtype=torch.float64)
    Y = X[:, :1] + X[:, 1:] / 9
    options = {"objectives": LOSS, "acquisition": FAST, "seed": 0}
    assert propose(space, X, Y, **options).X[0, 0] == 2  # the only one not measured there
    X[2, 1] = 9
    with pytest.raises(SpaceExhausted, match="n = 9"):
        propose(space, X, Y, **options)
    assert propose(space, X, Y, fixed={"n": 3}, **options).X[0].tolist() in ([1, 3], [2, 3])
