"""Ranks and their tests: published critical values, counted permutations, SciPy's statistics."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studies.statistics import Blocks, Trajectories, compare_ranks, ranking_dependence
from studies.statistics.ranks import friedman_permutation_test

NOTHING = pd.DataFrame()


def blocks_of(*problems):
    """Blocks with these final scores, each `seeds x surrogates`; the initial design had 1000."""
    names = tuple("abcdefgh"[: np.shape(problems[0])[1]])
    found = []
    for k, final in enumerate(problems):
        final = np.array(final, dtype=float)
        scores = np.stack([np.full_like(final, 1000.0), final], axis=-1)
        found.append(Trajectories(f"p{k}", names, tuple(range(len(final))), 1, scores, True))
    return Blocks(names, tuple(found), NOTHING, NOTHING)


def random_blocks(count=8, seeds=3, k=4, seed=0):
    rng = np.random.default_rng(seed)
    return blocks_of(*rng.exponential(size=(count, seeds, k)))


def test_ranks_are_of_medians_with_problems_as_the_unit():
    blocks = blocks_of([[1, 2, 9], [1, 2, 0], [5, 4, 3]], [[3, 3, 1]])
    found = compare_ranks(blocks)
    assert found.ranks.loc["p0"].tolist() == [1, 2, 3]
    assert found.ranks.loc["p1"].tolist() == [2.5, 2.5, 1]
    assert found.average.to_dict() == {"a": 1.75, "b": 2.25, "c": 2.0}
    assert list(found.average.index) == ["a", "c", "b"]
    assert compare_ranks(blocks, unit="run").ranks.shape == (4, 3)


def test_nothing_feasible_ranks_last():
    found = compare_ranks(blocks_of([[np.inf, 1, np.inf]], [[2, 1, 3]]))
    assert found.ranks.loc["p0"].tolist() == [2.5, 1, 2.5]


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (8, 3.031)])
def test_critical_differences_are_those_of_demsars_table(k, q):
    found = compare_ranks(random_blocks(count=14, k=k), resamples=9)
    assert found.critical_difference == pytest.approx(q * np.sqrt(k * (k + 1) / 84), rel=5e-4)


def test_nemenyis_test_and_its_critical_difference_agree():
    found = compare_ranks(random_blocks(count=30, k=5, seed=3), alpha=0.7, resamples=9)
    gaps = np.abs(np.subtract.outer(found.ranks.mean().values, found.ranks.mean().values))
    apart = gaps > found.critical_difference
    assert apart.any()
    assert ((found.nemenyi.to_numpy() < 0.7) == apart).all()


@pytest.mark.parametrize("ties", [False, True])
def test_concordance_and_friedmans_statistic_are_one_identity(ties):
    blocks = random_blocks(count=9, seeds=1)
    if ties:
        blocks = blocks_of(*np.random.default_rng(1).integers(3, size=(9, 1, 4)))
    found = compare_ranks(blocks, resamples=9)
    scipys = stats.friedmanchisquare(*blocks.medians().to_numpy().T).statistic
    assert found.friedman == pytest.approx(scipys)
    assert found.concordance == pytest.approx(scipys / (9 * 3))


@pytest.mark.parametrize(("count", "p"), [(2, 1 / 6), (3, 1 / 36), (4, 1 / 216)])
def test_blocks_that_agree_have_the_p_value_of_counting_permutations(count, p):
    found = compare_ranks(blocks_of(*[[[1, 2, 3]]] * count))
    assert found.p_value == pytest.approx(p)
    assert found.concordance == 1.0


def test_two_surrogates_have_the_sign_test():
    found = compare_ranks(blocks_of(*[[[1, 2]]] * 6, [[2, 1]]))
    assert np.isnan(found.friedman)
    assert found.p_value == pytest.approx(stats.binomtest(6, 7).pvalue)


def test_many_blocks_approach_the_chi_square_law():
    blocks = random_blocks(count=60, k=3, seed=5)
    found = compare_ranks(blocks)
    scipys = stats.friedmanchisquare(*blocks.medians().to_numpy().T).pvalue
    # 9999 permutations: five standard errors, and two parts in a hundred of approximation.
    assert found.p_value == pytest.approx(scipys, abs=0.02 + 5 * np.sqrt(0.25 / 9999))


@pytest.mark.parametrize("count", [4, 6])
def test_wilcoxons_least_p_value_is_that_of_perfect_separation(count):
    blocks = blocks_of(*[[[1 + k, 20 + 2 * k, 60 + 5 * k]] for k in range(count)])
    found = compare_ranks(blocks)
    assert found.least_wilcoxon == min(1.0, 3 * 2 / 2**count)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(found.wilcoxon.to_numpy()[off], found.least_wilcoxon)
    assert not found.wilcoxon_can_tell


def test_wilcoxons_p_values_are_scipys_by_holms_steps():
    blocks = random_blocks(count=9, k=3, seed=2)
    values = blocks.medians(normalized=True)
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    raw = {p: stats.wilcoxon(values[p[0]], values[p[1]]).pvalue for p in pairs}
    running, expected = 0.0, {}
    for step, pair in enumerate(sorted(raw, key=raw.__getitem__)):
        running = max(running, min(1.0, (3 - step) * raw[pair]))
        expected[pair] = running
    found = compare_ranks(blocks).wilcoxon
    assert {p: found.loc[p] for p in pairs} == pytest.approx(expected)
    assert found.equals(found.T)


def test_surrogates_that_never_differ_are_not_told_apart():
    found = compare_ranks(blocks_of(*[[[2, 2, 2]]] * 5))
    assert found.p_value == 1.0
    assert (found.wilcoxon.to_numpy() == 1).all()
    assert (found.nemenyi.to_numpy() == 1).all()
    some = compare_ranks(blocks_of(*[[[2 + k, 2 + k, 9 + k]] for k in range(5)]))
    assert some.wilcoxon.loc["a", "b"] == 1.0
    assert some.wilcoxon.loc["a", "c"] == pytest.approx(3 * 2 / 2**5)


def test_one_problem_has_ranks_and_no_test():
    found = compare_ranks(blocks_of([[1, 2, 3], [1, 2, 3]]))
    assert found.p_value == 1.0
    assert found.nemenyi.isna().all().all()
    assert not found.nemenyi_can_tell
    assert compare_ranks(blocks_of([[1], [2]])) is None
    assert compare_ranks(Blocks(("a", "b"), (), NOTHING, NOTHING)) is None


def test_friedmans_p_value_is_uniform_where_all_surrogates_are_alike():
    values = [
        friedman_permutation_test(random_blocks(5, 1, 3, seed=s).medians().rank(axis=1), 99)
        for s in range(150)
    ]
    # A valid test: at most binomial(150, 0.2) plus five standard deviations.
    assert np.mean(np.array(values) <= 0.2) <= 0.2 + 5 * np.sqrt(0.16 / 150)


def test_opposite_rankings_of_two_problems_have_the_p_value_of_counting_labels():
    up, down = [[1, 2, 3]] * 3, [[3, 2, 1]] * 3
    found = ranking_dependence(blocks_of(up, down))
    assert (found.within, found.between) == (1.0, -1.0)
    assert found.p_value == pytest.approx(2 / 20)  # of the ways to choose 3 of 6, these and theirs


def test_rankings_that_do_not_depend_on_the_problem_are_rarely_said_to():
    values = [
        ranking_dependence(random_blocks(count=4, seeds=4, k=4, seed=s), resamples=99).p_value
        for s in range(150)
    ]
    assert np.mean(np.array(values) <= 0.2) <= 0.2 + 5 * np.sqrt(0.16 / 150)
    one_seed = [[[1, 2]], [[1, 2]]]
    assert ranking_dependence(blocks_of(*one_seed)) is None
    assert ranking_dependence(blocks_of([[1, 2], [2, 1]])) is None
