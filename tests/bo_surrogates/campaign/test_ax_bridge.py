"""The bridge to Ax: names and values, the private touch points, and parity with `loop.py`."""

import math

import pytest
import torch
from ax.adapter.torch import TorchAdapter
from ax.core.observation import ObservationFeatures
from ax.generators.torch.botorch_modular.generator import BoTorchGenerator

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.campaign import ax_bridge
from bo_surrogates.campaign.ax_bridge import AxBridge
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import FitWarning, RunError
from bo_surrogates.loop import _standardized, fit
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Space
from bo_surrogates.surrogates import SURROGATES, FitDiagnostics, Surrogate
from tests.bo_surrogates.surrogates.conftest import CHEAP

FAST = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20)
MIXED = Space(
    [
        Float("temperature (C)", 20.0, 80.0),
        Float("E", 1e-3, 1.0, log=True),  # Euler's number to an expression parser
        Int("lambda", 1, 6),  # a keyword to Python
        Ordered("size", (1, 4, 16)),
        Ordered("grade", ("low", "mid", "high")),
        Choice("solvent", ("water", "ethanol", "none of them")),
        Choice("stirred", (True, False)),
    ]
)


def measure(values):
    x = math.log10(values["E"]) + values["temperature (C)"] / 30 - values["lambda"] / 3
    return x**2 + values["size"] / 8 + len(values["solvent"]) / 10 + values["stirred"]


YIELD = (Objective("yield of S", "maximize"),)


def spec(space, *, surrogate="gp", objectives=YIELD, **options):
    options = {"budget": 30, "initial": 6, "seed": 3, "acquisition": FAST, **options}
    return CampaignSpec(
        name="test", space=space, objectives=objectives, surrogate=surrogate, **options
    )


def told(campaign, n, f=measure, sem=None):
    """n completed trials on the campaign's own design."""
    X = sobol_design(campaign.space, n, seed=1)
    trials = []
    for i, x in enumerate(X):
        values = campaign.space.decode(x)
        y = f(values)
        y = y if isinstance(y, dict) else {campaign.objectives[0].name: y}
        results = {k: Measurement(v, sem) for k, v in y.items()}
        trials.append(Trial(i, values, "completed", "sobol", results))
    return trials


def predicted(bridge, X):
    """Means and standard deviations of the first metric by Ax."""
    space = bridge.spec.space
    points = [ObservationFeatures(parameters=bridge._to_ax(space.decode(x))) for x in X]
    means, covariances = bridge._adapter.predict(points)
    mean = torch.tensor(means["y0"], dtype=torch.float64)
    return mean, torch.tensor(covariances["y0"]["y0"], dtype=torch.float64).sqrt()


@pytest.fixture(scope="module")
def mixed_suggestions():
    campaign = spec(MIXED)
    bridge = AxBridge(campaign)
    return bridge, bridge.ask(2, told(campaign, 8))


def test_every_kind_of_parameter_survives_the_way_to_ax_and_back():
    bridge = AxBridge(spec(MIXED))
    for x in sobol_design(MIXED, 64, seed=0):
        values = MIXED.decode(x)
        back = bridge._from_ax(bridge._to_ax(values))
        assert back == values
        assert [type(v) for v in back.values()] == [type(v) for v in values.values()]


def test_a_surrogates_suggestions_are_valid_points_of_a_mixed_space(mixed_suggestions):
    _, suggestions = mixed_suggestions
    assert [s.origin for s in suggestions] == ["gp", "gp"]
    for s in suggestions:
        assert MIXED.validate(s.parameters) == s.parameters
    assert suggestions[0].parameters != suggestions[1].parameters


def test_a_suggestion_carries_the_fits_figures_and_the_prediction(mixed_suggestions):
    _, suggestions = mixed_suggestions
    figures = suggestions[0].diagnostics
    assert figures["converged"] == 1.0
    assert math.isfinite(figures["predicted:yield of S"])
    assert figures["predicted_sd:yield of S"] > 0


def test_ax_sees_no_name_of_the_user(mixed_suggestions):
    bridge, _ = mixed_suggestions
    assert set(bridge.experiment.parameters) == {f"x{i}" for i in range(MIXED.dim)}
    assert set(bridge.experiment.metrics) == {"y0"}


@pytest.mark.parametrize("name", list(SURROGATES))
def test_posterior_and_acquisition_value_equal_those_of_the_loop(name):
    """The same data, configuration and seed: the two layers must not drift apart."""
    space = Space([Float("a", -3.0, 5.0), Float("b", 1e-4, 1e-1, log=True), Int("c", 0, 7)])
    known = SURROGATES[name].config_class.__dataclass_fields__
    config = {k: v for k, v in (CHEAP | {"steps": 50}).items() if k in known}
    campaign = spec(space, surrogate=name, surrogate_config=config, objectives=(Objective("y"),))
    trials = told(campaign, 8, lambda v: 1e3 + 40 * (v["a"] - 1) ** 2 + math.log10(v["b"]) * v["c"])
    bridge = AxBridge(campaign)
    with fixed_seed(0):
        adapter = bridge._fitted(trials)
        adapter.gen(1)

    train_X = torch.stack([space.encode(t.parameters) for t in trials])
    train_Y = torch.tensor([[t.value("y")] for t in trials], dtype=torch.float64)
    model = fit(
        space, train_X, train_Y,
        surrogate=name, config=config, seed=derive_seed(campaign.seed, "fit", len(trials)),
    )  # fmt: skip
    X = sobol_design(space, 16, seed=9)
    Z = space.to_model(X)
    mean, sem = predicted(bridge, X)
    posterior = model.posterior(Z)
    scale = train_Y.std()
    torch.testing.assert_close(mean / scale, posterior.mean[:, 0] / scale, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        sem / scale, posterior.variance[:, 0].sqrt() / scale, atol=1e-5, rtol=0
    )

    seed = derive_seed(campaign.seed, "acquisition", len(trials))
    ours = make_acquisition(
        _standardized(model), config=FAST, weights=torch.tensor([[-1.0]], dtype=torch.float64),
        X_baseline=space.to_model(train_X), seed=seed,
    )  # fmt: skip
    theirs = adapter.generator.acquisition
    assert adapter.parameters == ["x0", "x1", "x2"]
    values = ours(Z.unsqueeze(1))
    torch.testing.assert_close(theirs(Z.unsqueeze(1)), values, atol=1e-4, rtol=1e-4)
    assert values.std() > 0


def test_thompson_sampling_follows_the_functions_of_the_loop():
    """Which function is drawn must depend on the seed and the pending points only."""
    space = Space([Float("a", -3.0, 5.0), Float("b", 0.0, 1.0)])
    config = FAST.replace(name="thompson")
    campaign = spec(space, objectives=(Objective("y"),), acquisition=config)
    trials = told(campaign, 8, lambda v: (v["a"] - 1) ** 2 + 3 * v["b"])
    bridge = AxBridge(campaign)
    first, second = bridge.ask(2, trials)
    assert first.parameters != second.parameters
    Z_first = space.to_model(space.encode(first.parameters)).unsqueeze(0)
    theirs = bridge._adapter.generator.acquisition
    theirs.set_X_pending(Z_first)  # as it was when the second point was sought
    train_X = torch.stack([space.encode(t.parameters) for t in trials])
    train_Y = torch.tensor([[t.value("y")] for t in trials], dtype=torch.float64)
    model = fit(space, train_X, train_Y, seed=derive_seed(campaign.seed, "fit", len(trials)))
    Z = space.to_model(train_X)
    ours = make_acquisition(
        _standardized(model), config=config, weights=torch.tensor([[-1.0]], dtype=torch.float64),
        X_baseline=Z, seed=derive_seed(campaign.seed, "acquisition", len(trials)),
        X_pending=Z_first,
    )  # fmt: skip
    values = ours(Z.unsqueeze(1))
    torch.testing.assert_close(theirs(Z.unsqueeze(1)), values, atol=1e-4, rtol=1e-4)
    assert values.std() > 0


def test_the_posterior_equals_the_loops_in_a_space_of_every_kind_of_parameter():
    """Encodings must agree: log, ordered levels, one-hot columns, a choice of two."""
    space = Space([*MIXED.parameters, Int("batch", 8, 512, log=True)])
    campaign = spec(space)
    trials = told(campaign, 20, lambda v: measure(v) + math.log2(v["batch"]))
    bridge = AxBridge(campaign)
    bridge.ask(1, trials)
    train_X = torch.stack([space.encode(t.parameters) for t in trials])
    train_Y = torch.tensor([[t.value("yield of S")] for t in trials], dtype=torch.float64)
    model = fit(space, train_X, train_Y, seed=derive_seed(campaign.seed, "fit", len(trials)))
    ours = model.transform_inputs(space.to_model(train_X))
    surrogate = bridge._adapter.generator.surrogate
    theirs = surrogate.model.transform_inputs(surrogate.training_data[0].X)
    # Ax puts an expanded choice where it stood, and so do we: only rounding may differ.
    torch.testing.assert_close(theirs, ours, atol=1e-7, rtol=0)
    X = sobol_design(space, 16, seed=9)
    mean, _ = predicted(bridge, X)
    # Rounding moves the end of a search in flat directions of the likelihood.
    difference = (mean - model.posterior(space.to_model(X)).mean[:, 0]).abs().max()
    assert difference < 0.02 * train_Y.std()


def test_the_same_seed_proposes_the_same_after_a_rebuild():
    campaign = spec(MIXED)
    trials = told(campaign, 8)
    grown = AxBridge(campaign)
    grown._fitted(trials[:7])  # as a campaign grows
    again = AxBridge(campaign)  # all at once, as after a resume
    first, second = grown.ask(2, trials), again.ask(2, trials)
    assert [s.parameters for s in first] == [s.parameters for s in second]


def test_an_abandoned_point_is_not_proposed_again():
    """Ax proposes a failed or NaN point again, for ever; an abandoned one counts as pending."""
    space = Space([Float("x", 0.0, 1.0)])
    campaign = spec(space, objectives=(Objective("y"),), initial=3)
    trials = told(campaign, 6, lambda v: (v["x"] - 0.3) ** 2)
    bridge = AxBridge(campaign)
    tried = []
    for _ in range(3):
        (s,) = bridge.ask(1, trials)
        x = s.parameters["x"]
        assert all(abs(x - other) > 1e-3 for other in tried)
        tried.append(x)
        trials.append(Trial(len(trials), s.parameters, "abandoned", "gp", reason="broken"))


def test_points_asked_together_differ_and_respect_the_constraint():
    space = Space(
        [Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)], [LinearConstraint.parse("a + b <= 0.8")]
    )
    campaign = spec(space, objectives=(Objective("y"),), initial=4)
    f = lambda v: -v["a"] - v["b"]  # noqa: E731 - its minimum is on the constraint
    suggestions = AxBridge(campaign).ask(3, told(campaign, 6, f))
    points = [tuple(s.parameters.values()) for s in suggestions]
    assert len(set(points)) == 3
    assert all(a + b <= 0.8 + 1e-8 for a, b in points)
    assert max(a + b for a, b in points) > 0.75


def test_the_initial_design_counts_successes_only():
    campaign = spec(Space([Float("x", 0.0, 1.0)]), objectives=(Objective("y"),), initial=3)
    trials = told(campaign, 3, lambda v: v["x"])
    trials[1] = Trial(1, trials[1].parameters, "abandoned", "sobol", reason="broken")
    origins = [s.origin for s in AxBridge(campaign).ask(2, trials)]
    assert origins == ["sobol", "gp"]


def test_an_exhausted_space_is_reported_as_such():
    space = Space([Int("n", 1, 2), Choice("c", ("u", "v"))])
    campaign = spec(space, objectives=(Objective("y"),), initial=2, budget=10)
    trials = told(campaign, 4, lambda v: v["n"])
    with pytest.raises(RunError, match="all 4 points"):
        AxBridge(campaign).ask(1, trials)


def test_every_point_of_a_small_space_is_proposed_once():
    space = Space([Int("n", 1, 3), Choice("c", ("u", "v"))])
    campaign = spec(space, objectives=(Objective("y"),), initial=2, budget=10)
    trials, bridge = told(campaign, 2, lambda v: v["n"]), AxBridge(campaign)
    while len(trials) < 6:
        (s,) = bridge.ask(1, trials)
        result = {"y": Measurement(float(s.parameters["n"]))}
        trials.append(Trial(len(trials), s.parameters, "completed", s.origin, result))
    assert len({tuple(t.parameters.values()) for t in trials}) == 6


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e6])
def test_suggestions_do_not_depend_on_the_units_of_the_outcome(scale):
    """Ax leaves outcomes with a standard deviation below 1e-8 unscaled."""
    space = Space([Float("x", 0.0, 1.0)])
    campaign = spec(space, objectives=(Objective("y"),), initial=4)
    f = lambda v: (v["x"] - 0.37) ** 2  # noqa: E731
    (reference,) = AxBridge(campaign).ask(1, told(campaign, 6, f))
    (scaled,) = AxBridge(campaign).ask(1, told(campaign, 6, lambda v: scale * f(v)))
    assert scaled.parameters["x"] == pytest.approx(reference.parameters["x"], abs=1e-4)


def test_known_noise_reaches_the_surrogate_and_is_dropped_when_a_value_lacks_it():
    campaign = spec(Space([Float("x", 0.0, 1.0)]), objectives=(Objective("y"),), initial=4)
    trials = told(campaign, 6, lambda v: v["x"], sem=0.2)
    bridge = AxBridge(campaign)
    bridge.ask(1, trials)
    data = bridge._adapter.generator.surrogate.training_data[0]
    stdv = data.Yvar.sqrt().mean() * torch.tensor([t.value("y") for t in trials]).std()
    assert stdv == pytest.approx(0.2, rel=1e-6)
    last = trials[-1]
    without = Trial(5, last.parameters, "completed", "sobol", {"y": Measurement(last.value("y"))})
    bridge.ask(1, [*trials[:-1], without])
    assert bridge._adapter.generator.surrogate.training_data[0].Yvar is None


def test_constraints_and_reference_points_reach_the_acquisition_function():
    space = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])
    objectives = (Objective("f"), Objective("g", "maximize", reference=-0.5))
    campaign = spec(
        space, objectives=objectives, constraints=(OutcomeConstraint("h", "<=", 0.7),), initial=4
    )
    f = lambda v: {"f": v["a"] ** 2, "g": -((v["a"] - 1) ** 2), "h": v["b"]}  # noqa: E731
    suggestions = AxBridge(campaign).ask(2, told(campaign, 8, f))
    assert all(s.parameters["b"] <= 0.75 for s in suggestions)


def test_cross_validation_predicts_held_out_points_without_having_seen_them():
    """Ax's default reuses the state fitted to all data: noise is then 'predicted'."""
    space = Space([Float("x", 0.0, 1.0)])
    campaign = spec(space, surrogate="gp", objectives=(Objective("y"),), initial=4)
    noise = torch.randn(20, generator=torch.Generator().manual_seed(0)).tolist()
    values = iter(noise)
    trials = told(campaign, 20, lambda v: next(values))
    bridge = AxBridge(campaign)
    bridge.ask(1, trials)
    generator = bridge._adapter.generator
    X = generator.surrogate.training_data[0].X
    mean, covariance = generator.cross_validate(
        generator.surrogate.training_data, X, generator.surrogate._last_search_space_digest
    )
    assert mean.shape == (20, 1)
    assert covariance.shape == (20, 1, 1)
    fitted = generator._fold_surrogates
    assert set(fitted) == {0, 1, 2, 3, 4}
    for k, surrogate in fitted.items():
        held_out = X[k :: generator.folds]
        seen = surrogate.training_data[0].X
        assert not (held_out.unsqueeze(1) == seen).all(-1).any()
        assert len(seen) == 16


def test_private_touch_points_of_ax_are_where_they_were():
    assert ax_bridge.fit_botorch_model.dispatch(Surrogate) is ax_bridge._fit_surrogate
    assert ax_bridge.fit_botorch_model.dispatch(SURROGATES["gp"].model_class) is (
        ax_bridge._fit_surrogate
    )
    for name in (
        "_compute_in_design", "_fit_if_implemented", "_set_and_filter_training_data",
        "_set_model_space", "_set_search_space", "_transform_data",
    ):  # fmt: skip
        assert callable(getattr(TorchAdapter, name)), name
    for name in ("gen", "best_point", "cross_validate"):
        assert callable(getattr(BoTorchGenerator, name)), name


def test_a_journal_with_a_hole_is_refused():
    campaign = spec(Space([Float("x", 0.0, 1.0)]), objectives=(Objective("y"),))
    trials = told(campaign, 3, lambda v: v["x"])
    with pytest.raises(RunError, match="lacks trials"):
        AxBridge(campaign).ask(1, [trials[0], trials[2]])


def test_a_fit_whose_diagnostics_failed_says_so_and_is_recorded(monkeypatch):
    failed = FitDiagnostics(False, "the chains disagree", {"r_hat": 3.0})
    monkeypatch.setattr(SURROGATES["gp"].model_class, "_diagnose", lambda self, mll: failed)
    campaign = spec(Space([Float("x", 0.0, 1.0)]), objectives=(Objective("y"),), initial=3)
    with pytest.warns(FitWarning, match="not to be relied on: the chains disagree"):
        (s,) = AxBridge(campaign).ask(1, told(campaign, 4, lambda v: v["x"]))
    assert s.diagnostics["converged"] == 0.0
    assert s.diagnostics["r_hat"] == 3.0
    X = torch.rand(4, 1, dtype=torch.float64)
    with pytest.warns(FitWarning, match="of gp is not to be relied on: the chains disagree"):
        SURROGATES["gp"].build(X, X, seed=0)
