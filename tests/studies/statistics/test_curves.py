"""Curves, profiles and costs: small cases by hand, and identities with the runs."""

import numpy as np
import pandas as pd
import pytest

from studies.statistics import (
    Blocks,
    Trajectories,
    average_rank_curves,
    compare_ranks,
    complete_blocks,
    cost_per_iteration,
    evaluations_to_target,
    normalized_regret_curves,
    performance_profile,
    regret_against_seconds,
    regret_curves,
)
from tests.studies.synthetic_results import make_frames


@pytest.fixture(scope="module")
def frames():
    return make_frames()


def test_curves_are_quartiles_over_seeds_from_the_design_on(frames):
    found = regret_curves(frames["evaluations"], frames["cells"], resamples=50)
    assert set(found["seeds"]) == {4}
    assert found["finished"].all()
    mine = found.query("problem == 'branin' and surrogate == 'dkl'").set_index("evaluation")
    assert list(mine.index) == list(range(5, 18))
    rows = frames["evaluations"].query("problem == 'branin' and surrogate == 'dkl'")
    at = rows.query("evaluation == 9")["regret"]
    assert mine.loc[9, ["q25", "median", "q75"]].tolist() == pytest.approx(
        at.quantile([0.25, 0.5, 0.75]).tolist()
    )
    assert (mine["low"] <= mine["median"]).all()
    assert (mine["median"] <= mine["high"]).all()
    assert mine.loc[9, "low"] >= at.min()


def test_curves_of_an_unfinished_run_do_not_jump():
    states = {("branin", "gp", s): ("partial", 2 + s) for s in range(4)}
    states[("branin", "nngp", 0)] = ("partial", 3)
    frames = make_frames(["branin"], states=states)
    found = regret_curves(frames["evaluations"], frames["cells"], resamples=50)
    last = found.groupby("surrogate").last()
    assert last.loc["gp", ["evaluation", "seeds", "finished"]].tolist() == [7, 4, False]
    assert last.loc["nngp", ["evaluation", "seeds", "finished"]].tolist() == [17, 3, True]


def test_curves_of_nothing_are_nothing(frames):
    nothing = frames["evaluations"].iloc[:0]
    assert regret_curves(nothing, frames["cells"]).empty
    assert regret_against_seconds(nothing, frames["cells"]).empty


def test_averages_over_problems_begin_at_the_design_and_end_at_the_final_scores(frames):
    blocks = complete_blocks(frames["evaluations"], frames["cells"])
    found = normalized_regret_curves(blocks, resamples=50)
    assert (found.loc[found["share"] == 0, "normalized"] == 1).all()
    last = found[found["share"] == 1].set_index("surrogate")["normalized"]
    assert last.to_dict() == pytest.approx(blocks.medians(normalized=True).mean().to_dict())
    ranks = average_rank_curves(blocks, resamples=50)
    assert (ranks.loc[ranks["share"] == 0, "rank"] == 2).all()
    assert ranks.groupby("share")["rank"].sum().tolist() == pytest.approx([6.0] * 51)
    end = ranks[ranks["share"] == 1].set_index("surrogate")["rank"]
    assert end.to_dict() == pytest.approx(compare_ranks(blocks, unit="run").average.to_dict())
    assert normalized_regret_curves(Blocks(("gp",), (), blocks.left_out, blocks.carried)).empty


def test_profiles_count_the_blocks_solved_within_a_factor():
    scores = np.array(
        [
            [[10, 5, 1, 1, 1], [10, 10, 10, 10, 1]],  # after 2 and 4 evaluations
            [[10, 1, 1, 1, 1], [10, 10, 10, 1, 1]],  # 1 and 3
            [[10, 10, 10, 10, 10], [10, 10, 1, 1, 1]],  # never and 2
        ],
        dtype=float,
    )
    nobody = np.full((1, 2, 5), 10.0)
    trajectories = tuple(
        Trajectories(name, ("a", "b"), tuple(range(len(s))), 1, s, True)
        for name, s in (("p", scores), ("q", nobody))
    )
    blocks = Blocks(("a", "b"), trajectories, pd.DataFrame(), pd.DataFrame())
    needed = evaluations_to_target(blocks, 0.1)
    assert needed["a"].tolist() == [2, 1, np.inf, np.inf]
    assert needed["b"].tolist() == [4, 3, 2, np.inf]
    found = performance_profile(blocks, 0.1).pivot(
        index="factor", columns="surrogate", values="share"
    )
    # Problem p has half of the weight, shared by its three seeds.
    assert found["a"].to_dict() == pytest.approx({1.0: 2 / 6, 2.0: 2 / 6, 3.0: 2 / 6})
    assert found["b"].to_dict() == pytest.approx({1.0: 1 / 6, 2.0: 2 / 6, 3.0: 3 / 6})


def test_regret_against_seconds_is_what_half_of_the_seeds_had_reached():
    rows = [
        ("p", "gp", seed, iteration, iteration + 1, 1, score, seconds)
        for seed, course in enumerate(
            ([(8, 1.0), (4, 2.0), (2, 10.0)], [(6, 1.0), (5, 4.0), (1, 10.0)], [(7, 1.0), (3, 3.0)])
        )
        for iteration, (score, seconds) in enumerate(course)
    ]
    evaluations = pd.DataFrame(
        rows,
        columns=[
            "problem", "surrogate", "seed", "iteration", "evaluation", "n_initial", "score",
            "seconds",
        ],
    )  # fmt: skip
    cells = pd.DataFrame(
        [("p", "gp", s, "done", 2, None) for s in range(3)],
        columns=["problem", "surrogate", "seed", "state", "iterations", "reason"],
    )
    found = regret_against_seconds(evaluations, cells, resamples=20)

    def at(seconds):
        return found[found["seconds"] <= seconds * (1 + 1e-9)]["median"].iloc[-1]

    assert found["seconds"].iloc[0] == pytest.approx(1.0)
    assert found["seconds"].iloc[-1] == pytest.approx(10.0)
    assert [at(1.0), at(2.2), at(3.3), at(5.0), at(10.0)] == [7, 6, 4, 4, 2]


def test_costs_are_geometric_means_over_problems_of_medians():
    steps = pd.DataFrame(
        [
            (problem, "gp", seed, fit, 0.1, 0.0, 0.0, 2 * fit, 100.0 + seed)
            for problem, fits in (("p", [0.9, 1.9, 9.9]), ("q", [7.9, 7.9, 7.9]))
            for seed in (0, 1)
            for fit in fits
        ],
        columns=[
            "problem", "surrogate", "seed", "fit_seconds", "acquisition_seconds",
            "evaluation_seconds", "overhead_seconds", "cpu_seconds", "peak_memory_mb",
        ],
    )  # fmt: skip
    (row,) = cost_per_iteration(steps).itertuples()
    assert row.seconds == pytest.approx(4.0)
    assert row.fit_seconds == pytest.approx((1.9 * 7.9) ** 0.5)
    assert row.cpu_seconds == pytest.approx(2 * (1.9 * 7.9) ** 0.5)
    assert (row.low, row.high) == pytest.approx((4.0, 4.0))
    assert row.overhead == 0
    assert row.peak_memory_mb == 101


def test_a_run_that_exhausted_a_finite_space_stays_where_it_ended():
    frames = make_frames(["branin"], ["gp"], seeds=3, states={("branin", "gp", 1): ("done", 4)})
    found = regret_curves(frames["evaluations"], frames["cells"], resamples=20)
    assert found["evaluation"].tolist() == list(range(5, 18))
    rows = frames["evaluations"].set_index(["seed", "evaluation"])["regret"]
    expected = np.median([rows[0, 17], rows[1, 9], rows[2, 17]])
    assert found["median"].iloc[-1] == pytest.approx(expected)
    (t,) = complete_blocks(frames["evaluations"], frames["cells"]).trajectories
    assert t.scores[1, 0, -1] == rows[1, 9]
