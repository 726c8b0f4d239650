from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from bo_surrogates.seeding import derive_seed, fixed_seed

seeds = st.integers(0, 2**31 - 1)
parts = st.lists(st.one_of(st.integers(0, 10**6), st.text(max_size=8)), max_size=4)


@given(seeds, parts)
def test_a_derived_seed_is_determined_and_in_range(seed: int, path: list[int | str]) -> None:
    derived = derive_seed(seed, *path)
    assert derived == derive_seed(seed, *path)
    assert 0 <= derived < 2**31


def test_a_derived_seed_is_the_same_in_another_process() -> None:
    code = "from bo_surrogates.seeding import derive_seed; print(derive_seed(7, 'fit', 3))"
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert int(output.stdout) == derive_seed(7, "fit", 3)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("a", 1), ("a1",)),
        (("ab",), ("a", "b")),
        ((1, 2), (12,)),
        ((1,), ("1",)),
        (("a",), (97,)),
        ((), ("",)),
        ((0,), ()),
        ((0,), (0, 0)),
        ((1, 2), (2, 1)),
        (("é",), ("e",)),
    ],
)
def test_different_paths_give_different_seeds(
    a: tuple[int | str, ...], b: tuple[int | str, ...]
) -> None:
    assert derive_seed(0, *a) != derive_seed(0, *b)


def test_derived_seeds_hardly_ever_collide_and_are_uniform() -> None:
    derived = [derive_seed(s, "trial", t) for s in range(50) for t in range(100)]
    # 5000 of 2^31: 0.006 pairs are expected to collide; two or more have probability 2e-5,
    # three or more 4e-8.
    assert len(derived) - len(set(derived)) < 3
    above = sum(s >= 2**30 for s in derived)
    low, high = binom.ppf([1e-8, 1 - 1e-8], 5000, 0.5)
    assert low <= above <= high


def draws() -> tuple[float, float]:
    return torch.rand(()).item(), float(np.random.rand())


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 2**40])
def test_a_fenced_block_is_determined_by_its_seed(seed: int) -> None:
    results = []
    for _ in range(2):
        with fixed_seed(seed):
            results.append(draws())
    assert results[0] == results[1]
    with fixed_seed(seed + 1):
        assert draws() != results[0]


def test_the_callers_streams_go_on_as_if_nothing_had_happened() -> None:
    with fixed_seed(3):
        expected = [draws(), draws()]
    with fixed_seed(3):
        first = draws()
        with fixed_seed(8):
            draws()
        assert [first, draws()] == expected


def test_the_callers_streams_are_restored_after_an_error() -> None:
    before = torch.get_rng_state(), np.random.get_state()

    def fail() -> None:
        draws()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), fixed_seed(0):
        fail()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))


def test_without_a_seed_the_block_uses_the_callers_streams() -> None:
    with fixed_seed(3):
        expected = draws()
    with fixed_seed(3), fixed_seed(None):
        assert draws() == expected
