"""The stopwatch: rounds interleaved, warm-up left out, medians and ratios right."""

import pytest

from benchmarks.timing import Sample, measure, summarize


def test_rounds_are_interleaved_and_the_warm_up_is_not_counted():
    order = []

    def case(name):
        def work(seed):
            return {
                "a": lambda: order.append((name, "a", seed)),
                "b": lambda: order.append((name, "b", seed)),
            }

        return work

    samples = measure({"x": case("x"), "y": case("y")}, rounds=2, warm_up=1)
    one_round = [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")]
    assert [o[:2] for o in order] == one_round * 3
    assert [o[2] for o in order] == [0] * 4 + [0] * 4 + [1] * 4
    assert [(s.case, s.part) for s in samples] == one_round * 2
    assert all(s.cpu >= 0 and s.wall >= 0 for s in samples)


def test_figures_are_medians_and_ratios_of_medians():
    samples = [Sample("peer", "fit", i, cpu, 2 * cpu) for i, cpu in enumerate((1.0, 2.0, 9.0))]
    samples += [Sample("own", "fit", i, cpu, cpu) for i, cpu in enumerate((0.5, 1.0, 1.5))]
    samples += [Sample("own", "extra", 0, 3.0, 3.0)]
    rows = {(r["case"], r["part"]): r for r in summarize(samples, "peer")}
    assert rows["peer", "fit"]["cpu"] == 2.0
    assert rows["peer", "fit"]["wall"] == 4.0
    assert rows["own", "fit"]["ratio"] == pytest.approx(0.5)
    assert rows["own", "extra"]["ratio"] is None
    assert (rows["own", "extra"]["cpu_q25"], rows["own", "extra"]["rounds"]) == (3.0, 1)
