"""A campaign's surrogate: the one that asking uses, exact intervals, the user's names."""

import math

import pandas as pd
import pytest
import torch

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Space

SPACE = Space(
    [
        Float("temperature (C)", 20.0, 80.0),
        Float("E", 1e-3, 1.0, log=True),
        Int("passes", 1, 6),
        Ordered("grade", ("low", "mid", "high")),
        Choice("solvent", ("water", "ethanol", "dmso")),
    ],
    [LinearConstraint({"temperature (C)": 1.0, "passes": 5.0}, 100.0)],
)
FAST = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20)
KINDS = ["gp", "ensemble", "tp", "saas"]  # gaussian, ensemble, student-t, mixture


def measure(values):
    x = math.log10(values["E"]) + values["temperature (C)"] / 30
    return {
        "yield": 1e3 * x + 50 * len(values["solvent"]),
        "cost": 1e-3 * values["passes"],
        "smell": x,
    }


LINE = {
    "space": Space([Float("x", 0.0, 1.0)]),
    "f": lambda values: {"loss": values["x"]},
    "objectives": (Objective("loss"),),
    "constraints": (),
}


def started(path, surrogate="gp", n=16, sem=None, space=SPACE, f=measure, **options):
    """A campaign with n completed trials, without asking."""
    options = {
        "objectives": (Objective("yield", "maximize"), Objective("cost", unit="EUR")),
        "constraints": (OutcomeConstraint("smell", "<=", 0.0),),
        **options,
    }
    spec = CampaignSpec(
        name="test", space=space, surrogate=surrogate, budget=40, initial=4, seed=3,
        acquisition=FAST, **options,
    )  # fmt: skip
    campaign = Campaign.create(spec, path / "test.db")
    for x in sobol_design(space, n, seed=5):
        trial = campaign.add_trial(space.decode(x))
        told = f(trial.parameters)
        campaign.tell(trial.index, {m: (told[m], sem) for m in campaign.metrics})
    return campaign


@pytest.mark.parametrize("surrogate", ["gp", "ensemble"])
def test_the_model_is_the_one_that_the_next_ask_decides_by(tmp_path, surrogate):
    only = (Objective("yield", "maximize"),)
    with started(tmp_path, surrogate, n=8, objectives=only, constraints=()) as campaign:
        model = campaign.model()
        (trial,) = campaign.ask()
        (row,) = model.predict(trial.parameters).to_dict(orient="records")
        # Up to where the optimizer of hyper-parameters stops, among outcomes of 1e2 to 1e3.
        assert row["yield"] == pytest.approx(trial.diagnostics["predicted:yield"], abs=1.0)
        assert row["yield (sd)"] == pytest.approx(trial.diagnostics["predicted_sd:yield"], rel=1e-2)


@pytest.mark.parametrize("surrogate", KINDS)
def test_predictions_of_every_kind_are_the_surrogates_moments_and_quantiles(tmp_path, surrogate):
    with started(tmp_path, surrogate) as campaign:
        points = [SPACE.decode(x) for x in sobol_design(SPACE, 3, seed=9)]
        model = campaign.model()
        for noise in (False, True):
            found = campaign.predict(points, level=0.8, noise=noise)
            assert list(found.columns[:5]) == list(SPACE.names)
            assert found["solvent"].tolist() == [p["solvent"] for p in points]
            Z = SPACE.to_model(torch.stack([SPACE.encode(p) for p in points]))
            for metric in ("yield", "cost", "smell"):
                surrogate = model.surrogates[metric]
                levels = torch.tensor([0.1, 0.9], dtype=torch.float64)
                ends = surrogate.quantile(Z, levels, observation_noise=noise)[..., 0]
                posterior = surrogate.posterior(Z, observation_noise=noise)
                assert found[f"{metric} (10%)"].tolist() == pytest.approx(ends[0].tolist())
                assert found[f"{metric} (90%)"].tolist() == pytest.approx(ends[1].tolist())
                assert found[metric].tolist() == pytest.approx(posterior.mean.flatten().tolist())
                sd = posterior.variance.sqrt().flatten().tolist()
                assert found[f"{metric} (sd)"].tolist() == pytest.approx(sd)


def test_known_standard_errors_are_used_where_the_surrogate_can(tmp_path):
    stdv = {}
    for surrogate, sem in (("gp", 0.0), ("gp", 0.3), ("robust_gp", 0.3)):
        folder = tmp_path / f"{surrogate}{sem}"
        folder.mkdir()
        with started(folder, surrogate, n=6, sem=sem, **LINE) as campaign:
            found = campaign.predict(campaign.trials[0].parameters)
            stdv[surrogate, sem] = found["loss (sd)"].item()
    assert stdv["gp", 0.3] > 10 * stdv["gp", 0.0]
    assert math.isfinite(stdv["robust_gp", 0.3])  # which takes no variances


def test_the_model_is_kept_until_there_is_something_new(tmp_path):
    with started(tmp_path, n=4) as campaign:
        first = campaign.model()
        assert campaign.model() is first
        trial = campaign.add_trial(SPACE.decode(sobol_design(SPACE, 6, seed=5)[5]))
        campaign.tell(trial.index, measure(trial.parameters))
        second = campaign.model()
        assert second is not first
        assert len(second.trials) == 5
    with Campaign.open(tmp_path / "test.db", read_only=True) as looking:
        row = looking.predict(trial.parameters)
        assert row.equals(second.predict(trial.parameters))  # the same from anywhere


def test_points_outside_the_space_are_refused_by_name(tmp_path):
    with started(tmp_path, n=3) as campaign:
        good = campaign.trials[0].parameters
        for change, said in (
            ({"temperature (C)": 99.0}, r"'temperature \(C\)' must be in \[20.0, 80.0\]"),
            ({"solvent": "watr"}, "did you mean 'water'"),
            ({"temperature (C)": 80.0, "passes": 6}, "violates the parameter constraint"),
            ({"colour": "red"}, "unknown parameter 'colour'"),
        ):
            with pytest.raises(InputError, match=said):
                campaign.predict({**good, **change})
            with pytest.raises(InputError, match="point 2: "):
                campaign.predict([good, {**good, **change}])
        with pytest.raises(InputError, match="'E' is missing"):
            campaign.predict({n: v for n, v in good.items() if n != "E"})
        for level in (0.0, 1.0, 90, "0.9"):
            with pytest.raises(InputError, match="level must be"):
                campaign.predict(good, level=level)


def test_a_dataframe_may_hold_more_than_parameters(tmp_path):
    with started(tmp_path, n=4) as campaign:
        trials = campaign.to_dataframe()
        found = campaign.predict(trials)
        assert len(found) == 4
        assert found["yield"].corr(trials["yield"]) > 0.9
        assert campaign.predict(pd.DataFrame(columns=list(SPACE.names))).empty


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_trials_say_so(tmp_path, n):
    with (
        started(tmp_path, n=n) as campaign,
        pytest.raises(InputError, match=r"(no|1) completed trials?; a surrogate needs at least 2"),
    ):
        campaign.model()


@pytest.mark.parametrize("surrogate", KINDS)
def test_explanations_of_every_kind_find_what_matters(tmp_path, surrogate):
    with started(tmp_path, surrogate, n=24) as campaign:
        model = campaign.model()
        found = model.sensitivity("cost", n=256, functions=8)
        assert found.names == SPACE.names
        assert found.constrained
        assert found.order[0] == 2
        assert found.total[2] > 0.8
        scales = model.lengthscales("cost")
        if surrogate == "ensemble":
            assert scales is None
        else:
            assert min(scales, key=scales.get) == "passes"


def test_cross_validation_of_a_metric_and_what_cannot_be_had(tmp_path):
    with started(tmp_path, n=8, **LINE) as campaign:
        model = campaign.model()
        assert model.cross_validate("loss").r2 > 0.9
        with pytest.raises(InputError, match="unknown metric 'lost'; did you mean 'loss'"):
            model.cross_validate("lost")
