"""How many threads numerical libraries may use.

Small tensors gain nothing from threads and lose much where processes compete for the same cores,
and the rounding of a sum (hence the course of a campaign) depends on their number.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # read when loaded


@contextmanager
def limited_threads(n: int) -> Iterator[None]:
    """Run a block with n threads in torch, BLAS and OpenMP, as far as these are loaded.

    Unlike environment variables, the limit is not inherited by programs that the block starts, and
    it ends with the block.
    """
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")  # loading it takes seconds that most black boxes do not need
    before = None if torch is None else torch.get_num_threads()
    with threadpool_limits(n):
        if torch is not None:
            torch.set_num_threads(n)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
