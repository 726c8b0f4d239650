import itertools

import numpy as np
import pytest
import torch

from bo_surrogates.errors import InputError
from problems import PROBLEMS


def quality(x, motif, spacing, allowed, levels):
    """By the definition, one sequence."""
    if any(not allowed[a, b] for a, b in itertools.pairwise(x)):
        return 0.0
    value, k = 1.0, motif.shape[1]
    for letters, offsets in zip(motif, spacing, strict=True):
        shares = [
            np.mean([x[start + o] == a for a, o in zip(letters, offsets, strict=True)])
            for start in range(len(x) - offsets[-1])
        ]
        value *= np.floor(levels * max(shares) + 1e-9) / levels
    assert k == len(letters)
    return value


SMALL = {"length": 6, "letters": 3, "motifs": 2, "motif_length": 2, "quantization": 2}


@pytest.mark.parametrize("seed", range(3))
def test_all_sequences_of_a_small_function_agree_with_the_definition(seed):
    problem = PROBLEMS["ehrlich"].make(**SMALL, banned=0.4, function_seed=seed)
    sequences = np.array(list(itertools.product(range(3), repeat=6)))
    parts = [t.numpy() for t in (problem.motif, problem.spacing, problem.allowed)]
    expected = [quality(x, *parts, levels=2) for x in sequences]
    X = torch.tensor(sequences).double()
    assert problem(X).tolist() == pytest.approx(expected)
    assert max(expected) == 1.0
    banned = [sum(not parts[2][a, b] for a, b in itertools.pairwise(x)) for x in sequences]
    assert problem.evaluate_slack(X)[:, 0].tolist() == [-float(b) for b in banned]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"motifs": 8, "motif_length": 4, "letters": 32},
        {"length": 15, "letters": 4, "motifs": 3, "motif_length": 4, "quantization": 2},
        {"length": 128, "motifs": 4, "motif_length": 4, "banned": 0.9, "function_seed": 3},
    ],
)
def test_the_constructed_solution_is_feasible_and_has_the_largest_value(options):
    problem = PROBLEMS["ehrlich"].make(**options)
    assert problem(problem.optimizers).item() == 1.0
    assert problem.is_feasible(problem.optimizers).item()


def test_a_broken_motif_loses_its_share_down_to_the_quantization():
    problem = PROBLEMS["ehrlich"].make(banned=0.0, motifs=1, letters=20)
    x = problem.optimizers[0].clone()
    other = next(a for a in range(20) if a not in problem.motif.flatten().tolist())
    values = []
    for letter in problem.motif[0]:
        x[x == letter] = other
        values.append(problem(x[None]).item())
    assert values == [0.75, 0.5, 0.25, 0.0]
    coarse = PROBLEMS["ehrlich"].make(banned=0.0, motifs=1, letters=20, quantization=1)
    x = coarse.optimizers[0].clone()
    x[x == coarse.motif[0][0]] = other
    assert coarse(x[None]).item() == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 10}, "4 motifs of 4 letters do not fit in a sequence of 10"),
        ({"letters": 3}, r"motif_length must be at most letters \(3\)"),
        ({"quantization": 3}, r"quantization must divide motif_length \(4\), got 3"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PROBLEMS["ehrlich"].make(**options)
