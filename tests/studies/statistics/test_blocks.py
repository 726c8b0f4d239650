"""Complete blocks are compared; normalized regret is 1 at the design and 0 at the optimum."""

import numpy as np
import pytest

from bo_surrogates.errors import InputError
from studies.statistics import Trajectories, complete_blocks
from tests.studies.synthetic_results import make_frames


def blocks_of(**settings):
    frames = make_frames(**settings)
    return complete_blocks(frames["evaluations"], frames["cells"]), frames


def trajectories(scores, known=True, n_initial=1):
    scores = np.array(scores, dtype=float)
    names = tuple("abc"[: scores.shape[1]])
    return Trajectories("p", names, tuple(range(len(scores))), n_initial, scores, known)


def test_scores_of_complete_blocks_are_those_recorded():
    blocks, frames = blocks_of()
    keys = ["problem", "seed", "surrogate", "evaluation"]
    recorded = frames["evaluations"].set_index(keys).sort_index()
    for t in blocks.trajectories:
        for i, seed in enumerate(t.seeds):
            for j, surrogate in enumerate(t.surrogates):
                expected = recorded.loc[(t.problem, seed, surrogate), "score"]
                assert t.scores[i, j].tolist() == expected.tolist()
    assert blocks.left_out.empty
    assert blocks.carried.empty
    assert blocks.runs == 8


def test_a_block_that_waits_for_a_surrogate_is_left_out_for_all():
    states = {("branin", "gp", 1): ("partial", 3), ("branin", "dkl", 2): ("missing", -1)}
    blocks, _ = blocks_of(states=states)
    assert [t.seeds for t in blocks.trajectories] == [(0, 3), (0, 1, 2, 3)]
    assert blocks.left_out["reason"].tolist() == ["waits for gp", "waits for dkl"]
    assert blocks.left_out["seed"].tolist() == [1, 2]


def test_a_problem_without_complete_blocks_is_left_out():
    states = {("branin", "gp", s): ("missing", -1) for s in range(4)}
    blocks, _ = blocks_of(states=states)
    assert blocks.problems == ("hartmann6",)
    assert blocks.medians().shape == (1, 3)


def test_a_failed_cell_keeps_what_it_had_reached():
    blocks, frames = blocks_of(states={("branin", "nngp", 0): ("failed", 4)})
    mine = frames["evaluations"].query("problem=='branin' and surrogate=='nngp' and seed==0")
    scores = blocks.trajectories[0].scores[0, 1]
    assert len(scores) == 17
    assert scores[:9].tolist() == mine["score"].tolist()
    assert set(scores[9:]) == {mine["score"].iloc[-1]}
    assert blocks.carried.iloc[0].tolist() == ["branin", "nngp", 0, 9, "no convergence"]


def test_a_failed_cell_without_records_has_the_initial_design_that_its_block_shares():
    blocks, _ = blocks_of(states={("branin", "nngp", 0): ("failed", -1)})
    t = blocks.trajectories[0]
    assert t.scores[0, 1, :5].tolist() == t.scores[0, 0, :5].tolist()
    assert set(t.scores[0, 1, 5:]) == {t.scores[0, 0, 4]}


def test_a_run_without_anything_has_no_blocks():
    states = {(p, s, k): ("missing", -1) for p in ("a",) for s in ("gp", "nngp") for k in (0, 1)}
    frames = make_frames(["a", "b"], ["gp", "nngp"], seeds=2, states=states)
    cells = frames["cells"].query("problem == 'a'")
    blocks = complete_blocks(frames["evaluations"], cells)
    assert blocks.runs == 0
    assert blocks.final().shape == (0, 2)
    assert len(blocks.left_out) == 2


def test_only_the_surrogates_asked_for_are_compared():
    frames = make_frames(states={("branin", "gp", 1): ("missing", -1)})
    blocks = complete_blocks(frames["evaluations"], frames["cells"], ["dkl", "nngp"])
    assert blocks.surrogates == ("dkl", "nngp")
    assert blocks.runs == 8
    with pytest.raises(InputError, match="no surrogate 'hmc' in this run; it has gp, nngp, dkl"):
        complete_blocks(frames["evaluations"], frames["cells"], ["hmc"])


def test_normalized_regret_is_the_share_of_the_designs_regret():
    t = trajectories([[[4.0, 2.0, 1.0], [4.0, 4.0, 0.0]]])
    assert t.normalized[0].tolist() == [[1.0, 0.5, 0.25], [1.0, 1.0, 0.0]]


def test_normalized_regret_without_an_optimum_is_to_the_best_of_all_blocks():
    t = trajectories([[[-2.0, -6.0], [-2.0, -4.0]], [[0.0, -10.0], [0.0, 0.0]]], known=False)
    assert t.normalized[0].tolist() == [[1.0, 0.5], [1.0, 0.75]]
    assert t.normalized[1].tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_normalized_regret_does_not_depend_on_the_outcomes_scale():
    rng = np.random.default_rng(0)
    scores = np.minimum.accumulate(rng.normal(size=(3, 2, 9)), axis=-1)
    scores[:, :, 0] = scores[:, :1, 0]
    plain, scaled = trajectories(scores, known=False), trajectories(7 * scores - 3, known=False)
    np.testing.assert_allclose(plain.normalized, scaled.normalized)


def test_without_a_feasible_point_nothing_is_gained():
    none, late = [np.inf, np.inf, np.inf], [np.inf, 8.0, 2.0]
    assert trajectories([[none, late]]).normalized[0].tolist() == [[1, 1, 1], [1, 1, 0.25]]
    assert trajectories([[none, none]], known=False).normalized.tolist() == [[[1, 1, 1], [1, 1, 1]]]


def test_a_design_that_holds_the_optimum_leaves_nothing_to_gain():
    t = trajectories([[[0.0, 0.0], [0.0, 0.1]]])
    assert t.normalized[0].tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_shares_of_the_budget_are_whole_evaluations():
    t = trajectories(np.zeros((1, 2, 14)), n_initial=4)
    assert t.at(np.array([0.0, 0.1, 0.19, 0.3, 1.0])).tolist() == [3, 4, 4, 6, 13]
