"""Slices, contours, forecasts and importances: what is drawn is what the surrogate says."""

import math

import numpy as np
import pytest
import torch

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.forecasts import coverage, forecasts
from bo_surrogates.campaign.slices import axis_of, cut, default_point, nearness
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Space
from reports.contours import draw_contours
from reports.forecasts import draw_forecasts
from reports.importance import draw_importance
from reports.slices import draw_slices
from reports.style import distinct, save

SPACE = Space(
    [
        Float("heat", 20.0, 80.0, unit="°C"),
        Float("rate", 1e-3, 1.0, log=True),
        Int("passes", 1, 6),
        Ordered("grade", ("low", "mid", "high")),
        Choice("solvent", ("water", "ethanol", "dmso")),
    ],
    [LinearConstraint({"heat": 1.0, "passes": 5.0}, 95.0)],
)


def measure(v):
    return {"yield": v["heat"] + 5 * math.log10(v["rate"]), "cost": float(v["passes"])}


def started(path, space=SPACE, n=12, f=measure, surrogate="gp", **options):
    options = {
        "objectives": (Objective("yield", "maximize", unit="%"),),
        "constraints": (OutcomeConstraint("cost", "<=", 4.5),),
        **options,
    }
    spec = CampaignSpec("test", space, surrogate=surrogate, budget=40, seed=3, **options)
    campaign = Campaign.create(spec, path / "test.db")
    for x in sobol_design(space, n, seed=5):
        trial = campaign.add_trial(space.decode(x))
        campaign.tell(trial.index, f(trial.parameters))
    return campaign


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    with started(tmp_path_factory.mktemp("figures")) as campaign:
        yield campaign


def lines(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


# ---- slices --------------------------------------------------------------------------------------
def test_a_slice_is_the_models_prediction_along_it(campaign):
    model, point = campaign.model(), default_point(campaign.model())
    assert point == campaign.best().parameters
    for name in SPACE.names:
        axis = axis_of(model, name)
        one = cut(model, "yield", point, axis)
        k = len(axis.values) // 2
        here = model.encode([{**point, name: axis.values[k]}]) if one.allowed[k] else None
        if here is None:
            continue
        found = model.marginals("yield", here, (0.05, 0.25, 0.75, 0.95))
        assert one.mean[k].item() == pytest.approx(found.mean.item(), rel=1e-6)
        assert one.quantiles[:, k].tolist() == pytest.approx(found.quantiles[:, 0].tolist())
    passes = cut(model, "yield", {**point, "heat": 80.0, "passes": 1}, axis_of(model, "passes"))
    assert passes.allowed.tolist() == [80 + 5 * p <= 95 for p in range(1, 7)]


def test_panels_show_mean_trials_limits_units_and_scales(campaign):
    figure = draw_slices(campaign)
    assert len(figure.axes) == 10
    heat, rate, passes, _, solvent = figure.axes[:5]
    model, point = campaign.model(), default_point(campaign.model())
    x, y = lines(heat, "mean")
    one = cut(model, "yield", point, axis_of(model, "heat"))
    assert np.array_equal(y, one.mean.numpy())
    assert (x[0], x[-1]) == (20.0, 80.0)
    assert rate.get_xscale() == "log"
    assert len(lines(passes, "mean")[0]) == 6
    assert heat.get_ylabel() == "yield [%]"
    bottom = figure.axes[5:]
    assert bottom[0].get_xlabel() == "heat [°C]"
    assert [t.get_text() for t in bottom[4].get_xticklabels()] == ["water", "ethanol", "dmso"]
    assert all(lines(axes, "constraint")[1].tolist() == [4.5, 4.5] for axes in bottom)
    assert not any(line.get_label() == "constraint" for line in solvent.lines)


def test_trials_fade_with_their_distance_from_the_slice(campaign):
    model, point = campaign.model(), default_point(campaign.model())
    near = nearness(model, "yield", point, axis_of(model, "heat"))
    assert near.max() == near[campaign.best().index] == 1.0
    shifted = {**point, "rate": 1e-3 if point["rate"] > 0.03 else 1.0}
    assert (nearness(model, "yield", shifted, axis_of(model, "rate")) <= 1).all()
    far = nearness(model, "yield", shifted, axis_of(model, "heat"))
    assert far[campaign.best().index] < 1.0


def test_chosen_parameters_and_mistakes(campaign):
    point = default_point(campaign.model())
    assert len(draw_slices(campaign, ["rate"], point).axes) == 2
    for wrong, said in (
        (lambda: draw_slices(campaign, ["raet"]), "did you mean 'rate'"),
        (lambda: draw_slices(campaign, (), {**point, "heat": 99.0}), "must be in"),
        (lambda: draw_contours(campaign, "rate", "rate"), "twice"),
        (lambda: draw_forecasts(campaign), "no completed trial yet that the surrogate proposed"),
    ):
        with pytest.raises(InputError, match=said):
            wrong()


def test_of_many_parameters_those_that_matter_are_drawn(tmp_path):
    space = Space([Float(f"a rather long name of parameter {i}", 0.0, 1.0) for i in range(20)])
    name = space.names[13]
    with started(
        tmp_path, space, n=24, f=lambda v: {"loss": v[name]}, constraints=(),
        objectives=(Objective("loss"),),
    ) as campaign:  # fmt: skip
        figure = draw_slices(campaign)
        assert len(figure.axes) == 8
        assert "8 of 20 parameters" in " ".join(figure.get_suptitle().split())
        assert any("13" in axes.get_xlabel() for axes in figure.axes)
        model = campaign.model()
        indices = {"loss": model.sensitivity("loss", n=64, functions=4)}
        (axes,) = draw_importance(campaign, indices).axes
        shown = [t.get_text() for t in axes.get_yticklabels()]
        assert 3 <= len(set(shown)) == len(shown) < 20
        assert "13" in shown[0]
        assert f"{20 - len(shown)} that matter less left out" in axes.get_xlabel()


def test_conditional_parameters_are_drawn_where_they_are_active(tmp_path):
    space = Space(
        [
            Choice("method", ("batch", "flow")),
            Float("time", 0.0, 1.0, when={"method": ("batch",)}),
            Float("speed", 0.0, 1.0, when={"method": ("flow",)}),
        ]
    )
    with started(
        tmp_path, space, n=10, constraints=(), objectives=(Objective("loss"),),
        f=lambda v: {"loss": v.get("time", 0.0) - v.get("speed", 0.0)},
    ) as campaign:  # fmt: skip
        assert campaign.best().parameters["method"] == "flow"
        figure = draw_slices(campaign)
        assert [axes.get_xlabel() for axes in figure.axes] == ["method", "speed"]
        assert figure.axes[1].get_xlim() == (0.0, 1.0)
        with pytest.raises(InputError, match="'time' is inactive"):
            draw_slices(campaign, ["time"])
        found = campaign.model().sensitivity("loss", n=256, functions=4)
        assert found.names == ("method", "time", "speed")
        assert found.total.argmax() == 0
        shown = campaign.predict([t.parameters for t in campaign.trials])
        assert shown["time"].isna().tolist() == [m == "flow" for m in shown["method"]]


# ---- contours ------------------------------------------------------------------------------------
def test_contours_show_mean_and_deviation_and_leave_out_what_is_not_allowed(campaign):
    figure = draw_contours(campaign, "heat", "rate")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [" ".join(axes.get_title().split()) for axes in panels] == [
        "yield [%], mean", "yield [%], standard deviation", "cost, mean",
        "cost, standard deviation",
    ]  # fmt: skip
    assert panels[0].get_yscale() == "log"
    figure = draw_contours(campaign, "heat", "solvent")
    mesh = figure.axes[0].collections[0].get_array()
    assert mesh.shape == (3, 45)
    passes = default_point(campaign.model())["passes"]
    heat = torch.linspace(20, 80, 45)
    assert (~mesh.mask[0]).tolist() == (heat + 5 * passes <= 95 + 1e-6).tolist()


# ---- degenerate campaigns ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("surrogate", "n", "f", "config"),
    [
        ("gp", 2, measure, {}),
        ("gp", 6, lambda v: {"yield": 7.0, "cost": 0.0}, {}),
        ("ensemble", 8, measure, {"steps": 100}),
        ("saas", 8, measure, {"warmup": 20, "samples": 20}),
        ("gp", 10, lambda v: {"yield": 1e7 if v["heat"] > 70 else v["heat"], "cost": 1.0}, {}),
        ("gp", 8, lambda v: {"yield": 1e-12 * v["heat"], "cost": -1e9}, {}),
    ],
)
@pytest.mark.filterwarnings("error::UserWarning:matplotlib")
def test_every_campaign_can_be_drawn(tmp_path, surrogate, n, f, config):
    space = Space(SPACE.parameters[:3], SPACE.constraints)
    with started(tmp_path, space, n, f, surrogate, surrogate_config=config) as campaign:
        for k, figure in enumerate(
            (
                draw_slices(campaign),
                draw_contours(campaign, "rate", "passes"),
            )
        ):
            assert save(figure, tmp_path / f"{k}.png").stat().st_size > 5_000


# ---- forecasts -----------------------------------------------------------------------------------
def proposed(index, measured, mean, sd, sem=None, **extra):
    figures = {"predicted:y": mean, "predicted_sd:y": sd, **extra}
    return Trial(
        index, {}, "completed", "gp", {"y": Measurement(measured, sem)}, diagnostics=figures
    )


def test_forecasts_take_the_noise_into_account_and_their_coverage_is_counted():
    trials = [proposed(i, y, 0.0, 1.0) for i, y in enumerate([0.0, 1.6, -1.6, 1.7, 5.0])]
    found = forecasts([*trials, Trial(9, {}, "completed", "sobol", {"y": Measurement(3.0)})], "y")
    assert [f.inside() for f in found] == [True, True, True, False, False]
    assert coverage(found) == 0.6
    assert coverage(found[:4]) is None
    assert forecasts([proposed(0, 1.0, 0.0, 3.0, sem=4.0)], "y")[0].stdv == 5.0
    noisy = proposed(0, 1.0, 0.0, 3.0, sem=4.0, **{"predicted_noisy_sd:y": 7.0})
    assert forecasts([noisy], "y")[0].stdv == 7.0
    assert forecasts([proposed(0, 1.0, 1.0, 0.0)], "y")[0].inside()
    assert not forecasts([proposed(0, 1.0, 1.1, 0.0)], "y")[0].inside()


def test_forecasts_of_a_campaign_are_drawn_with_their_share_inside(tmp_path):
    spec = CampaignSpec("f", Space([Float("x", 0.0, 1.0)]), (Objective("y"),), budget=9)
    with Campaign.create(spec, tmp_path / "f.db") as campaign:
        trials = [proposed(i, float(i), i + 0.5 * (i == 3), 0.1) for i in range(6)]
        campaign.journal.add_trials(
            campaign._id,
            [Trial(t.index, {"x": 0.1 * t.index}, "running", "gp", diagnostics=t.diagnostics)
             for t in trials],
        )  # fmt: skip
        for t in trials:
            campaign.tell(t.index, {"y": t.value("y")})
        (axes,) = draw_forecasts(campaign).axes
    assert axes.get_title() == "5 of 6 inside (83 %)"
    assert lines(axes, "outside the 90 % interval")[0].tolist() == [3.0]


@pytest.mark.parametrize(
    ("texts", "short"),
    [
        (["water", "dmso"], ["water", "dmso"]),
        (["a" * 30, "b" * 30], ["a" * 8 + "…" + "a" * 3, "b" * 8 + "…" + "b" * 3]),
        (
            [f"concentration of acid {i} in the feed" for i in (3, 12)],
            ["…acid 3…", "…acid 12…"],
        ),
        (["same"], ["same"]),
        (["a very long name, alone"], ["a very l…one"]),
    ],
)
def test_long_names_are_cut_so_that_they_differ(texts, short):
    assert distinct(texts, 12) == short
