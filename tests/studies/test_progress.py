"""How far a run is: cells counted, and the time left from what like iterations took."""

import pytest

from studies.progress import Progress
from studies.runner import Event
from tests.studies.conftest import small


def test_cells_are_counted_and_the_time_left_is_that_of_like_iterations():
    cells = small(seeds=2).resolve().cells
    first = [c for c in cells if c.key[:2] == ("branin", "gp")]
    progress = Progress()
    for cell in first:
        progress(Event("found", cell, -1))
    assert (progress.total, progress.done) == (2, 0)
    assert progress.seconds_left() is None
    progress(Event("started", first[0], -1))
    progress(Event("iteration", first[0], 0, 0.1))
    assert progress.seconds_left() is None
    for iteration, seconds in ((1, 10.0), (2, 20.0)):
        progress(Event("iteration", first[0], iteration, seconds))
    assert progress.running == {first[0]: 2}
    # One iteration of the first cell, as long as its latest; the other cell as the first.
    assert progress.seconds_left() == pytest.approx(20 + 10 + 20 + 20)
    progress(Event("iteration", first[0], 3, 30.0))
    assert progress.seconds_left() == pytest.approx(10 + 20 + 30)
    progress(Event("done", first[0], 3))
    progress(Event("started", first[1], -1))
    progress(Event("failed", first[1], text="no power"))
    assert progress.seconds_left() == 0
    assert (progress.done, progress.failed, progress.running) == (1, {first[1]: "no power"}, {})


def test_cells_of_another_kind_take_the_mean_and_two_at_a_time_halve_it():
    cells = small(seeds=1).resolve().cells
    progress = Progress()
    for cell in cells:
        progress(Event("found", cell, -1))
    for cell in cells[:2]:
        progress(Event("started", cell, -1))
        progress(Event("iteration", cell, 1, 4.0))
    assert progress.seconds_left() == pytest.approx((2 * 2 * 4 + 2 * 3 * 4) / 2)


def test_a_cell_found_half_done_tells_what_the_rest_takes():
    (cell, *_) = small(seeds=1).resolve().cells
    progress = Progress()
    progress(Event("found", cell, 2, 10.0))
    assert progress.seconds_left() == pytest.approx(5.0)
