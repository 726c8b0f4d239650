"""Comparisons: shared designs, right regrets, nothing run on bad input."""

import pytest

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.errors import InputError
from studies.comparison import compare, summarize

FAST = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20)


@pytest.fixture(scope="module")
def table():
    return compare(
        ["branin"], ["gp", "nngp"], seeds=[0, 1], iterations=2, initial=6, acquisition=FAST
    )


def test_there_is_one_row_an_evaluation(table):
    assert len(table) == 2 * 2 * (6 + 2)
    assert (table.groupby(["surrogate", "seed"])["evaluation"].max() == 8).all()


def test_surrogates_of_a_seed_share_the_initial_design_and_seeds_differ(table):
    design = table[table["evaluation"] <= 6].pivot(
        index="evaluation", columns=["seed", "surrogate"], values="value"
    )
    assert (design[(0, "gp")] == design[(0, "nngp")]).all()
    assert (design[(0, "gp")] != design[(1, "gp")]).all()


def test_regret_is_the_distance_of_the_best_so_far_from_the_known_optimum(table):
    # Branin's minimum is 5 / (4 pi): at (pi, 2.275), say, the square vanishes and cos is -1.
    best = table.groupby(["surrogate", "seed"])["value"].cummin()
    assert (table["best"] == best).all()
    assert (table["regret"] - (table["best"] - 0.39788735772973816)).abs().max() < 1e-6
    assert (table["regret"] >= 0).all()


def test_the_summary_holds_medians_over_seeds(table):
    summary = summarize(table)
    assert set(summary["surrogate"]) == {"gp", "nngp"}
    assert (summary["seeds"] == 2).all()
    gp = table[(table["surrogate"] == "gp") & (table["evaluation"] == 8)]["regret"]
    assert summary.set_index("surrogate").loc["gp", "regret_median"] == pytest.approx(gp.mean())
    assert summary["regret_median"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("problems", "surrogates", "message"),
    [
        (["branin", "bramin"], ["gp"], "did you mean 'branin'"),
        (["branin"], ["gp", "nngpp"], "did you mean 'nngp'"),
        (["branin", "branin_currin"], ["gp"], "has 2 objectives"),
    ],
)
def test_bad_names_are_refused_before_anything_runs(problems, surrogates, message):
    ran = []
    with pytest.raises(InputError, match=message):
        compare(problems, surrogates, seeds=[0], iterations=1, on_run=lambda *a: ran.append(a))
    assert ran == []
