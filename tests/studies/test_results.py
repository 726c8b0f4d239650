"""What is read from a run agrees with what was evaluated, and with the models' own words."""

import math

import pytest
import torch
from botorch.utils.multi_objective.box_decompositions.dominated import DominatedPartitioning

from benchmarks import regret
from bo_surrogates.analysis.predictive_scores import score_points
from bo_surrogates.loop import propose
from bo_surrogates.seeding import derive_seed
from problems.constrained.gramacy import Gramacy
from problems.synthetic.branin import Branin
from problems.synthetic.branin_currin import BraninCurrin
from studies.course import Course, Facts
from studies.results import load
from studies.run_folder import RunFolder
from studies.study import ProblemArm
from tests.studies.conftest import small

CELL = ["problem", "surrogate", "seed"]


@pytest.fixture(scope="module")
def results(finished):
    return load(finished)


@pytest.fixture(scope="module")
def records(finished):
    study = small().resolve()
    return {c.key: RunFolder(finished).read_cell(c).iterations for c in study.cells}


def points(record, key):
    return torch.cat([torch.tensor(i[key], dtype=torch.float64) for i in record])


def test_there_is_one_row_an_evaluation_and_one_an_iteration(results):
    sizes = results.evaluations.groupby(CELL).size()
    assert (sizes["branin"] == 4 + 3).all()
    assert (sizes["noisy"] == 4 + 3 * 2).all()
    assert (results.evaluations.groupby(CELL)["evaluation"].agg(list).map(
        lambda e: e == list(range(1, len(e) + 1))
    )).all()  # fmt: skip
    assert (results.iterations.groupby(CELL)["iteration"].agg(list).map(
        lambda i: i == [1, 2, 3]
    )).all()  # fmt: skip
    assert len(results.pit) == 4 * 3 + 4 * 6
    assert results.pit["pit"].between(0, 1).all()
    assert results.environment["versions"]["torch"] == torch.__version__
    assert results.environment["workers"] == 1


def test_surrogates_of_a_seed_share_the_initial_design_and_seeds_differ(results):
    design = results.evaluations.query("iteration == 0").copy()
    design["value"] = design["values"].map(lambda v: v[0])
    table = design.pivot(index=["problem", "evaluation"], columns=["seed", "surrogate"])["value"]
    assert (table[(0, "gp")] == table[(0, "few")]).all()
    assert (table[(0, "gp")] != table[(1, "gp")]).all()


def test_regret_is_the_distance_of_the_noise_free_value_from_the_optimum(results, records):
    # Branin's minimum is 5 / (4 pi): at (pi, 2.275), say, the square vanishes and cos is -1.
    optimum = 5 / (4 * math.pi)
    for key, group in results.evaluations.groupby(CELL):
        X, Y = points(records[key], "X"), points(records[key], "Y").squeeze(-1)
        assert group["best"].tolist() == Y.cummin(0).values.tolist()
        true = Branin().evaluate_true(X)[Y.cummin(0).indices]
        found = torch.tensor(group["regret"].tolist(), dtype=torch.float64)
        torch.testing.assert_close(found, true - optimum, atol=1e-6, rtol=0.0)
        assert (found >= 0).all()
        # With noise, once there is a model, what it recommends is compared.
        told = "regret" if key[0] == "branin" else "inferred_regret"
        later = group["iteration"] > 0
        assert (group["score"] == group["regret"].where(~later, group[told])).all()
    assert results.evaluations["hypervolume"].isna().all()


def test_scores_and_recommendation_are_those_of_the_model_before_the_batch(results, records):
    study = small().resolve()
    key = ("noisy", "gp", 1)
    problem = study.problems[1].make()
    record = records[key]
    for number in (1, 2, 3):
        X, Y = points(record[:number], "X"), points(record[:number], "Y")
        proposal = propose(
            problem.space, X, Y, objectives=problem.objectives, surrogate="gp", q=2,
            acquisition=study.acquisition, design=4, seed=derive_seed(1, number),
        )  # fmt: skip
        batch = torch.tensor(record[number]["X"], dtype=torch.float64)
        assert torch.equal(proposal.X, batch)
        outcomes = torch.tensor(record[number]["Y"], dtype=torch.float64)
        expected = score_points(
            proposal.model, batch, outcomes, Y.std(), derive_seed(1, "scores", number)
        )
        row = results.iterations.set_index([*CELL, "iteration"]).loc[(*key, number)]
        assert row["n"] == len(X)
        assert row["nlpd"] == pytest.approx(expected.nlpd.mean().item(), rel=1e-6)
        assert row["crps"] == pytest.approx(expected.crps.mean().item(), rel=1e-6)
        assert row["coverage_50"] == expected.coverage(0.5)
        assert row["coverage_90"] == expected.coverage(0.9)
        pit = results.pit.set_index([*CELL, "iteration"]).loc[(*key, number), "pit"]
        assert pit.tolist() == pytest.approx(expected.pit.tolist(), rel=1e-6)
        with torch.no_grad():
            held_best = proposal.model.posterior(X).mean.squeeze(-1).argmin()
        before = results.evaluations.set_index([*CELL, "iteration"]).loc[(*key, number - 1)]
        truth = problem.evaluate_true(X[held_best]).item()
        assert before["inferred"].tolist() == pytest.approx([truth] * len(before))
        assert before["inferred_regret"].tolist() == pytest.approx(
            [truth - 5 / (4 * math.pi)] * len(before), abs=1e-6
        )
        assert row["diagnostics"]["converged"] in (0.0, 1.0)


def test_the_last_recommendation_is_known_too(results):
    assert results.evaluations["inferred"].notna().all()


def test_seconds_add_up(results):
    spent = results.iterations.set_index([*CELL, "iteration"])
    taken = spent["fit_seconds"] + spent["acquisition_seconds"] + spent["evaluation_seconds"]
    last = results.evaluations.groupby(CELL)["seconds"].last()
    first = results.evaluations.groupby(CELL)["seconds"].first()
    assert (last - first).tolist() == pytest.approx(taken.groupby(CELL).sum()[last.index].tolist())
    assert (spent["overhead_seconds"] >= 0).all()
    assert (spent["peak_memory_mb"] > 50).all()  # torch alone takes more


def test_the_benchmark_of_regret_reads_off_the_same_figures(results, records):
    table = regret.rows(results).query("problem == 'branin' and surrogate == 'gp' and seed == 0")
    (row,) = table.to_dict("records")
    values = points(records[("branin", "gp", 0)], "Y").squeeze(-1) - 5 / (4 * math.pi)
    assert row["regret"] == pytest.approx(values.min().item(), abs=1e-6)
    assert row["halfway"] == pytest.approx(values[: 4 + 1].min().item(), abs=1e-6)
    assert row["seconds"] > 0
    assert f"{row['regret']:.2g}" in regret.markdown(regret.rows(results))


def course_of(name, problem):
    return Course(problem, Facts.of(ProblemArm(name, name), problem))


def test_hypervolume_is_botorchs_after_each_evaluation():
    problem = BraninCurrin()
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(40, 2, generator=generator, dtype=torch.float64)
    Y = problem.observe(X)
    course = course_of("branin_currin", problem)
    found = [v for batch in (slice(0, 25), slice(25, 40))
             for v in course.add(X[batch], Y[batch])["hypervolume"]]  # fmt: skip
    reference = -problem.ref_point
    for n in range(1, 41):
        boxes = DominatedPartitioning(ref_point=reference, Y=-Y[:n])
        assert found[n - 1] == pytest.approx(boxes.compute_hypervolume().item(), rel=1e-9)
    assert found[-1] > found[0]


def test_only_feasible_values_count():
    problem = Gramacy()
    course = course_of("gramacy", problem)
    X = torch.tensor([[0.1, 0.1], [0.7, 0.9], [0.2, 0.6], [0.3, 0.4]], dtype=torch.float64)
    Y = problem.observe(X)
    feasible = problem.is_feasible(X).tolist()
    assert feasible == [False, True, False, True]  # else this says nothing
    steps = course.add(X, Y)
    assert steps["feasible"] == feasible
    assert steps["best"] == pytest.approx([None, Y[1, 0].item(), Y[1, 0].item(), Y[3, 0].item()])
    # A model that takes the first for feasible recommends what is not.
    means = Y.clone()
    assert course.inferred(means) == pytest.approx(Y[3, 0].item())
    means[0] = Y[3]
    means[0, 0] -= 1.0
    assert course.inferred(means) is None
