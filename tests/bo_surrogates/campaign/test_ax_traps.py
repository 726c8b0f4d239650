"""What Ax would do by itself and must not; parity with the loop for every kind of goal."""

import math

import pytest
import torch

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.goals import standardized_goals
from bo_surrogates.acquisition.integrated_variance import integration_points
from bo_surrogates.campaign import ax_bridge
from bo_surrogates.campaign.ax_bridge import AxBridge
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.design import sobol_design
from bo_surrogates.loop import _standardized, fit
from bo_surrogates.objective import Objective, OutcomeConstraint, resolve
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Choice, Float, Space
from bo_surrogates.surrogates import SURROGATES

FAST = AcquisitionConfig(mc_samples=16, num_restarts=1, raw_samples=16, maxiter=10)
TINY = {"members": 3, "width": 8, "depth": 1, "steps": 30, "output_draws": 4}
SPACE = Space(
    [Float("x", 0.0, 1.0), Float("y", 0.1, 2.0, log=True), Choice("kind", ("u", "v", "w"))]
)
TWO = (Objective("f"), Objective("g", "maximize"))
PROFIT = (Objective("profit", "maximize", weights={"g": 12.0, "f": -1.0}),)


def measure(v):
    shift = 0.1 * len(v["kind"]) + 0.2 * (v["kind"] == "v")
    return {"f": 50 * (v["x"] - shift) ** 2 + v["y"], "g": math.sin(3 * v["x"]) - 0.1 * v["y"] ** 2}


def spec(objectives, surrogate="gp", **options):
    config = TINY if surrogate == "ensemble" else {}
    return CampaignSpec(
        name="test", space=SPACE, objectives=objectives, surrogate=surrogate,
        surrogate_config=config, **{"budget": 40, "initial": 6, "seed": 3, "acquisition": FAST,
        **options},
    )  # fmt: skip


def told(n, f=measure):
    values = [SPACE.decode(x) for x in sobol_design(SPACE, n, seed=1)]
    return [
        Trial(i, v, "completed", "sobol", {k: Measurement(y) for k, y in f(v).items()})
        for i, v in enumerate(values)
    ]


def generator_of(bridge):
    return bridge._adapter.generator


def test_a_weighted_sum_over_an_ensemble_is_proposed_two_at_a_time():
    """Ax's posterior transform for it takes no list of ensembles' posteriors."""
    first, second = AxBridge(spec(PROFIT, "ensemble")).ask(2, told(8))
    assert first.origin == second.origin == "ensemble"
    assert first.parameters != second.parameters
    assert {"predicted:f", "predicted:g"} <= set(first.diagnostics)


def test_reference_points_are_inferred_for_a_posterior_that_is_not_gaussian():
    """Ax infers them for Gaussian posteriors only, and fails for others."""
    bridge = AxBridge(spec(TWO, "ensemble"))
    assert [s.origin for s in bridge.ask(2, told(8))] == ["ensemble", "ensemble"]
    acqf = generator_of(bridge).acquisition.acqf
    assert torch.isfinite(torch.as_tensor(acqf.ref_point)).all()


def test_outcomes_are_neither_clipped_nor_bent():
    """An outlier of 100 standard deviations reaches the surrogate as it was measured."""
    trials = told(20)
    values = torch.tensor([t.value("f") for t in trials], dtype=torch.float64)
    outlier = float(values.mean() + 100 * values.std())
    last = trials[-1]
    measured = {"f": Measurement(outlier), "g": Measurement(last.value("g"))}
    trials[-1] = Trial(last.index, last.parameters, "completed", "sobol", measured)
    constraints = (OutcomeConstraint("f", "<=", float(values.median())),)  # BilogY bends these
    bridge = AxBridge(spec((Objective("g", "maximize"),), constraints=constraints))
    bridge.ask(1, trials)
    data = {
        d.outcome_names[0]: d.Y.squeeze(-1) for d in generator_of(bridge).surrogate.training_data
    }
    for metric in ("f", "g"):
        raw = torch.tensor([t.value(metric) for t in trials], dtype=torch.float64)
        expected = (raw - raw.mean()) / raw.std()
        torch.testing.assert_close(data[bridge._y[metric]].to(raw), expected, atol=1e-9, rtol=1e-9)


def test_what_is_measured_but_not_wanted_is_not_modelled(monkeypatch):
    """One fit a metric of the objectives and constraints, and none for any other."""
    fits = []
    original = SURROGATES["gp"].model_class.fit

    def counted(self, *args, **kwargs):
        fits.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(SURROGATES["gp"].model_class, "fit", counted)
    bridge = AxBridge(spec((Objective("g", "maximize"),), constraints=(
        OutcomeConstraint("f", "<=", 30.0),)))  # fmt: skip
    trials = told(8, lambda v: {**measure(v), "temperature": v["x"]})
    bridge.ask(1, trials)
    assert len(fits) == 2
    assert set(bridge.experiment.metrics) == {"y0", "y1"}


def test_a_pending_point_changes_the_next_ask():
    """Of the same seeds: first with a point pending that is measured already, then with its own."""
    trials = told(8)
    known = Trial(8, trials[0].parameters, "running", "gp")
    (unaware,) = AxBridge(spec(TWO)).ask(1, [*trials, known])
    bridge = AxBridge(spec(TWO))
    (aware,) = bridge.ask(1, [*trials, Trial(8, unaware.parameters, "running", "gp")])
    distance = SPACE.encode(aware.parameters) - SPACE.encode(unaware.parameters)
    assert distance.abs().max() > 1e-3
    pending = generator_of(bridge).acquisition.acqf.X_pending
    expected = ax_bridge.to_ax_columns(SPACE, SPACE.to_model(SPACE.encode(unaware.parameters)))
    assert pending.shape == (1, 5)  # the choice in three columns
    torch.testing.assert_close(pending[0], expected, atol=1e-6, rtol=0)


RELATIVE = (OutcomeConstraint("f", "<=", 20.0, relative=True),)
PARITY = {
    "weighted sum": (PROFIT, (), "auto"),
    "relative constraint": ((Objective("g", "maximize"),), RELATIVE, "auto"),
    "random scalarization": (TWO, (), "qlognparego"),
    "active learning": (TWO, (), "integrated_variance"),
    "constrained active learning": ((Objective("g", "maximize"),), RELATIVE, "integrated_variance"),
}


@pytest.mark.parametrize("case", PARITY)
def test_acquisition_values_equal_those_of_the_loop(case):
    objectives, constraints, name = PARITY[case]
    config, trials = FAST.replace(name=name), told(10)
    baseline = 2 if constraints else None
    campaign = spec(objectives, constraints=constraints, acquisition=config, baseline=baseline)
    bridge = AxBridge(campaign)
    with fixed_seed(0):
        bridge._fitted(trials).gen(1)
    theirs = generator_of(bridge).acquisition

    train_X = torch.stack([SPACE.encode(t.parameters) for t in trials])
    Y = torch.tensor([[t.value(m) for m in bridge.metrics] for t in trials], dtype=torch.float64)
    absolute = resolve(constraints, trials[2].means)
    goals = standardized_goals(objectives, absolute, Y)
    model = fit(SPACE, train_X, Y, seed=derive_seed(campaign.seed, "fit", len(trials)))
    ours = make_acquisition(
        _standardized(model), config=config, weights=goals.weights, reference=goals.reference,
        constraints=list(goals.constraints), X_baseline=SPACE.to_model(train_X),
        seed=derive_seed(campaign.seed, "acquisition", len(trials)),
        X_integration=integration_points(
            SPACE, config, derive_seed(campaign.seed, "integration", len(trials))
        ),
    )  # fmt: skip
    Z = SPACE.to_model(sobol_design(SPACE, 12, seed=9)).unsqueeze(1)
    theirs.set_X_pending(None)
    values = ours(Z)
    assert values.std() > 0
    torch.testing.assert_close(theirs(Z), values, atol=1e-3, rtol=1e-3)
