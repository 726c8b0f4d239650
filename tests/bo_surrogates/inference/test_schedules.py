from __future__ import annotations

import math

import pytest

from bo_surrogates.errors import InputError
from bo_surrogates.inference.schedules import cyclical, decreasing


def test_constant_steps_are_recorded_at_equal_intervals() -> None:
    schedule = decreasing(5, 4)
    assert schedule.sizes == (1.0,) * 20
    assert all(schedule.noisy)
    assert schedule.recorded == (3, 7, 11, 15, 19)


@pytest.mark.parametrize("decay", [0.33, 0.55, 1.0])
def test_decreasing_steps_are_recorded_at_equal_intervals_of_time(decay: float) -> None:
    samples, thinning = 30, 40
    schedule = decreasing(samples, thinning, decay)
    steps = samples * thinning
    assert schedule.sizes[0] == 1.0
    assert schedule.sizes[steps // 2] == pytest.approx(6.0**-decay)
    times = [sum(schedule.sizes[: t + 1]) for t in schedule.recorded]
    # Each interval has the mean time, up to one step at either end.
    for a, b in zip([0.0, *times[:-1]], times, strict=True):
        assert b - a == pytest.approx(sum(schedule.sizes) / samples, abs=1.0)
    assert len(set(schedule.recorded)) == samples
    assert schedule.recorded[-1] == steps - 1


def test_cycles_follow_the_cosine_of_their_source() -> None:
    """alpha_k = alpha_0 / 2 (cos(pi mod(k - 1, ceil(K / M)) / ceil(K / M)) + 1), k = 1..K."""
    samples, thinning, cycles, exploration = 12, 5, 3, 0.25
    K, length = samples * thinning, samples * thinning // cycles
    schedule = cyclical(samples, thinning, cycles, exploration)
    for k in range(1, K + 1):
        part = ((k - 1) % length) / length
        assert schedule.sizes[k - 1] == pytest.approx(0.5 * (math.cos(math.pi * part) + 1.0))
        assert schedule.noisy[k - 1] == (part >= exploration)
    assert len(schedule.recorded) == samples
    assert all(schedule.noisy[t] for t in schedule.recorded)
    assert {length - 1, 2 * length - 1, 3 * length - 1} <= set(schedule.recorded)


@pytest.mark.parametrize("samples", [4, 7, 16])
@pytest.mark.parametrize("exploration", [0.0, 0.5, 0.99])
def test_every_cycle_is_recorded_and_no_position_twice(samples: int, exploration: float) -> None:
    schedule = cyclical(samples, 2, 4, exploration)
    assert len(schedule.sizes) == len(schedule.noisy) == 2 * samples
    assert len(set(schedule.recorded)) == samples
    assert list(schedule.recorded) == sorted(schedule.recorded)
    assert all(schedule.noisy[t] for t in schedule.recorded)
    assert schedule.recorded[-1] == 2 * samples - 1


def test_fewer_samples_than_cycles_are_refused() -> None:
    with pytest.raises(InputError, match="3 samples are too few for 4 cycles"):
        cyclical(3, 10, 4, 0.2)
