"""The number of threads: set for a block, put back after it, whatever happens inside."""

import pytest
import torch
from threadpoolctl import threadpool_info

from bo_surrogates.threads import limited_threads


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_the_limit_holds_inside_the_block_and_ends_with_it():
    before, blas = torch.get_num_threads(), blas_threads()
    with limited_threads(2):
        assert torch.get_num_threads() == 2
    with limited_threads(1):
        assert torch.get_num_threads() == 1
        assert blas_threads() <= {1}
    assert torch.get_num_threads() == before
    assert blas_threads() == blas


def test_the_limit_ends_with_the_block_when_it_raises():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), limited_threads(before + 1):
        _ = 1 / 0
    assert torch.get_num_threads() == before
