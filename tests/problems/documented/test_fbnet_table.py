"""The table of all architectures: what is known of it is what a search through it finds."""

import csv

import pytest
import torch

from benchmarks.fbnet_table import train
from bo_surrogates.errors import InputError
from problems import PROBLEMS
from problems.documented.fbnet import counted_table, small_space
from problems.documented.fbnet_table import EPOCHS, FBNetTable, FBNetTableConfig

SPACE = small_space()
COLUMNS = (
    *(f"layer_{i}" for i in range(1, 5)), "seed", "validation_error", "test_error", "table_latency",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    """Two invented trainings an architecture, latencies the true ones."""
    generator = torch.Generator().manual_seed(0)
    table = counted_table(SPACE)
    return [
        [*a, seed, *torch.rand(2, generator=generator).mul(0.4).tolist(), table.latency(SPACE, a)]
        for seed in (0, 1)
        for a in SPACE.architectures()
    ]


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    return write(rows, tmp_path_factory.mktemp("table") / "table.csv")


def write(rows, path):
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows([COLUMNS, *rows])
    return str(path)


def means(rows):
    """By architecture: mean validation error and latency."""
    return [((a[5] + b[5]) / 2, a[7]) for a, b in zip(rows[:400], rows[400:], strict=True)]


def test_points_are_looked_up(rows, file):
    problem = FBNetTable(FBNetTableConfig(file=file))
    names = problem.space.names
    X = torch.stack(
        [problem.space.encode(dict(zip(names, row[:4], strict=True))) for row in rows[:400]]
    ).to(problem.bounds)
    found = problem(X, noise=False)
    torch.testing.assert_close(found, torch.tensor(means(rows), dtype=found.dtype))
    observed = problem.observe(X, seed=3)[:, 0].tolist()
    pairs = list(zip(rows[:400], rows[400:], strict=True))
    from_first = [value == a[5] for value, (a, b) in zip(observed, pairs, strict=True)]
    assert all(v in (a[5], b[5]) for v, (a, b) in zip(observed, pairs, strict=True))
    assert 100 < sum(from_first) < 300  # ten standard deviations about half
    assert problem.observe(X, seed=3)[:, 0].tolist() == observed


def test_the_optimum_within_a_budget_is_the_table_s(rows, file):
    problem = FBNetTable(FBNetTableConfig(file=file, table_latency_budget=25.0))
    best = min(error for error, latency in means(rows) if latency <= 25.0)
    assert problem.optimum.value == pytest.approx(best)
    at = problem.optimizers
    assert problem(at, noise=False).tolist() == pytest.approx([best])
    assert problem.is_feasible(at, noise=False).all()


def test_the_largest_hypervolume_is_that_of_all_points(rows, file):
    problem = FBNetTable(FBNetTableConfig(file=file))
    # The area below the references that some point dominates, strip by strip.
    area, lowest = 0.0, 0.5
    points = sorted((latency, error) for error, latency in means(rows))
    for latency, error in points:
        if error < lowest:
            area += (lowest - error) * (63.0 - latency)
            lowest = error
    assert problem.max_hv == pytest.approx(area)


def test_tables_that_are_none_are_refused(rows, file, tmp_path):
    for config, message in (
        ({"file": str(tmp_path / "none.csv")}, "cannot be read"),
        ({"file": write(rows[:390], tmp_path / "part.csv")}, "lacks 10 trainings"),
        ({"file": write([], tmp_path / "empty.csv")}, "lacks all trainings"),
        ({"file": write([["a"]], tmp_path / "other.csv")}, "is no table of architectures"),
        ({"file": file, "table_latency_budget": 5.0}, "the fastest architecture has 12.096"),
        ({"file": file, "objectives": ("errors",)}, "did you mean 'error'"),
    ):
        with pytest.raises(InputError, match=message):
            FBNetTable(FBNetTableConfig(**config))


def test_a_row_is_what_the_tuned_problem_gives_without_noise():
    architecture = ("k3_e1", "skip", "k3_e1", "skip")
    row = train(architecture, 2)
    problem = PROBLEMS["fbnet_architecture"].make(epochs=EPOCHS, training_seed=2)
    x = problem.space.encode(dict(zip(problem.space.names, architecture, strict=True)))
    expected = problem(x.unsqueeze(0).to(problem.bounds), noise=False)[0].tolist()
    assert [row["validation_error"], row["table_latency"]] == pytest.approx(expected)


def test_the_table_that_comes_along_is_whole_and_has_the_true_latencies():
    problem = PROBLEMS["fbnet_table"].make()
    table = counted_table(SPACE)
    names = problem.space.names
    architectures = list(SPACE.architectures())
    X = torch.stack([problem.space.encode(dict(zip(names, a, strict=True))) for a in architectures])
    errors, latencies = problem(X.to(problem.bounds), noise=False).unbind(dim=-1)
    assert latencies.tolist() == pytest.approx([table.latency(SPACE, a) for a in architectures])
    assert ((errors > 0) & (errors < 0.9)).all()  # ten classes: every one has learned
