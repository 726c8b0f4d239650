"""The data that Ax's adapter is handed: those that it would collect from an experiment."""

import math
from dataclasses import replace

import pytest
import torch
from ax.api.client import Client
from ax.core.data_utils import DataLoaderConfig, extract_experiment_data
from pandas.testing import assert_frame_equal

from bo_surrogates.campaign.ax_bridge import AxBridge
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import RunError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, Space

SPACE = Space([Float("a", 1e-3, 1.0, log=True), Int("b", 0, 9), Choice("c", ("u", "v", "w"))])
SPEC = CampaignSpec(
    name="t",
    space=SPACE,
    objectives=(Objective("f"),),
    constraints=(OutcomeConstraint("g", "<=", 1.0),),
    budget=99,
)


def journal(n, sem):
    """n trials: mostly completed, each fourth abandoned, the last two running."""
    trials = []
    for i, x in enumerate(sobol_design(SPACE, n, seed=2)):
        trial = Trial(i, SPACE.decode(x), "running", "sobol")
        if i % 4 == 3:
            trial = replace(trial, status="abandoned", reason="broke")
        elif i < n - 2:
            values = {"f": Measurement(math.sin(i), sem), "g": Measurement(i / n, sem)}
            trial = replace(trial, status="completed", measurements=values)
        trials.append(trial)
    return trials


def by_client(bridge, trials):
    """An experiment with these trials, by Ax's documented way."""
    client = Client()
    client.set_experiment(bridge.experiment)
    for t in trials:
        index = client.attach_trial(bridge._to_ax(t.parameters))
        if t.status == "completed":
            told = {s: t.measurements[m] for m, s in bridge._y.items()}
            client.complete_trial(
                index, {s: m.mean if m.sem is None else (m.mean, m.sem) for s, m in told.items()}
            )
        elif t.status == "abandoned":
            client.mark_trial_abandoned(index)
    return client._experiment


@pytest.mark.parametrize("sem", [None, 0.25])
def test_the_training_data_are_those_of_an_experiment_built_by_the_client(sem):
    trials = journal(17, sem)
    bridge = AxBridge(SPEC)
    experiment = by_client(AxBridge(SPEC), trials)
    expected = extract_experiment_data(experiment, DataLoaderConfig())
    found = bridge.training_data([t for t in trials if t.status == "completed"])
    assert len(found.arm_data) == 12
    for data in (found, expected):
        data.arm_data["metadata"] = None  # holds the time of completion
    for of_found, of_expected in (
        (found.arm_data, expected.arm_data),
        (found.observation_data[["mean"]], expected.observation_data[["mean"]]),
    ):  # text in an index may be of either of pandas' types
        assert_frame_equal(of_found, of_expected, check_index_type=False, check_column_type=False)
    # Whatever was told of the noise: `ToldNoise` puts it in when models are fitted.
    assert found.observation_data["sem"].isna().all(axis=None)


def test_what_awaits_results_or_gave_none_is_avoided_and_not_learnt_from():
    trials = journal(17, None)
    search = AxBridge(SPEC)._fitted(trials).generator.asked.search
    completed = {t.index for t in trials if t.status == "completed"}
    for X, indices in (
        (search.X_observed, completed),
        (search.X_pending, {*range(17)} - completed),
    ):
        torch.testing.assert_close(
            X, torch.stack([SPACE.encode(trials[i].parameters) for i in sorted(indices)])
        )


def test_a_journal_with_a_gap_is_refused():
    with pytest.raises(RunError, match="lacks trials before trial 2"):
        AxBridge(SPEC).ask(1, [t for t in journal(5, None) if t.index != 1])
