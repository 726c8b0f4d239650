"""Randomness is passed in: seeds derived from seeds, and a fence around libraries that use
torch's global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def derive_seed(seed: int, *path: int | str) -> int:
    """A seed for one purpose, e.g. `derive_seed(campaign_seed, "fit", trial_index)`.

    Different paths give statistically independent streams (NumPy's `SeedSequence`); the same
    path gives the same seed on every machine and in every process.

    Returns:
        An integer in [0, 2**31).
    """
    words: list[int] = [int(seed)]
    for part in path:
        if isinstance(part, str):
            words.extend(part.encode())
        else:
            words.append(int(part))
        # Separates the parts and tells their kinds apart: ("a", 1), ("a1",) and (97, 1) differ.
        words.append(2**31 + isinstance(part, str))
    return int(np.random.SeedSequence(words).generate_state(1, dtype=np.uint32)[0] >> 1)


@contextmanager
def fixed_seed(seed: int | None) -> Iterator[None]:
    """Run a block with torch's and NumPy's global generators seeded, then restore both.

    BoTorch and GPyTorch draw from the global generators in places (restart points, retries of a
    failed fit); this makes them deterministic without touching the caller's own streams. With
    `None` the block runs unfenced.
    """
    if seed is None:
        yield
        return
    import torch  # here: who only derives seeds does not wait for it

    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
