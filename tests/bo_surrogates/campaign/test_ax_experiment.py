"""Ax's experiment, which the bridge builds without Ax's client: it holds what that would."""

import math
from dataclasses import replace

import pytest
from ax.core.data_utils import DataLoaderConfig, extract_experiment_data
from ax.core.utils import extract_pending_observations

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
    """The same by Ax's documented way."""
    client = AxBridge(bridge.spec).client
    for t in trials:
        index = client.attach_trial(bridge._to_ax(t.parameters))
        if t.status == "completed":
            told = {s: t.measurements[m] for m, s in bridge._y.items()}
            client.complete_trial(
                index, {s: m.mean if m.sem is None else (m.mean, m.sem) for s, m in told.items()}
            )
        elif t.status == "abandoned":
            client.mark_trial_abandoned(index)
    return client


def experiment_data(client):
    data = extract_experiment_data(client._experiment, DataLoaderConfig())
    data.arm_data["metadata"] = None  # holds the time of completion
    return data


@pytest.mark.parametrize("sem", [None, 0.25])
def test_its_data_and_pending_points_are_those_of_an_experiment_built_by_the_client(sem):
    trials = journal(17, sem)
    bridge = AxBridge(SPEC)
    bridge.sync(trials)
    client = by_client(bridge, trials)
    expected = experiment_data(client)
    found = experiment_data(bridge.client)
    assert found.arm_data.equals(expected.arm_data)
    assert found.observation_data["mean"].equals(expected.observation_data["mean"])
    # Whatever was told of the noise: `ToldNoise` puts it in when models are fitted.
    assert found.observation_data["sem"].isna().all(axis=None)

    def points(pending):
        return {m: sorted(str(p.parameters) for p in ps) for m, ps in (pending or {}).items()}

    assert points(bridge._pending(trials)) == points(
        extract_pending_observations(client._experiment)
    )
    assert bridge._pending([t for t in trials if t.status == "completed"]) == {}


def test_it_is_the_same_however_the_results_came():
    """At once, as after a resume, or one by one, in any order."""
    trials = journal(17, None)
    at_once = AxBridge(SPEC)
    at_once.sync(trials)
    bridge, known = AxBridge(SPEC), []
    for t in trials:
        known.append(replace(t, status="running", measurements={}, reason=None))
        bridge.sync(known)
    for t in reversed(trials):
        known[t.index] = t
        bridge.sync(known)
    one, other = experiment_data(at_once.client), experiment_data(bridge.client)
    assert one.arm_data.equals(other.arm_data)
    assert one.observation_data.equals(other.observation_data)


def test_a_journal_with_a_gap_is_refused():
    with pytest.raises(RunError, match="lacks trials before trial 2"):
        AxBridge(SPEC).sync([t for t in journal(5, None) if t.index != 1])
