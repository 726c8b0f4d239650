"""Early stopping: the verdicts are Ax's; they are repeatable; what is stopped has no result."""

import sys
from itertools import product

import numpy as np
import pytest

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.black_box import make_black_box
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.early_stopping import EarlyStopping, interpolate
from bo_surrogates.campaign.execution.evaluation import Task
from bo_surrogates.campaign.execution.process_pool import ProcessPool
from bo_surrogates.campaign.learning_curve import extrapolate
from bo_surrogates.campaign.spec import BlackBoxSource, CampaignSpec
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space

SPACE = Space([Float("x", 0, 1)])


def train(x, report):
    """A loss that falls to x; better points are better at every step."""
    for step in range(1, 9):
        if not report(step, loss=x + 1 / step):
            return -1.0  # must not be taken for a result
    return x


def spec(**more):
    more.setdefault("early_stopping", EarlyStopping(min_steps=3, min_trials=3))
    return CampaignSpec(
        name="net", space=SPACE, objectives=(Objective("loss"),),
        **{"budget": 12, "initial": 12, "seed": 3, "batch_size": 3, **more},
    )  # fmt: skip


# ---- verdicts ------------------------------------------------------------------------------------
@pytest.mark.parametrize("minimize", [True, False])
def test_the_percentile_verdict_is_that_of_ax(minimize):
    """On random curves with random steps, some missing, against Ax's own strategy."""
    import logging

    import pandas as pd

    logging.disable(logging.WARNING)
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig
    from ax.early_stopping.strategies import PercentileEarlyStoppingStrategy

    logging.disable(logging.NOTSET)
    rng = np.random.default_rng(4)
    verdicts = set()
    client = Client()
    client.configure_experiment(
        parameters=[RangeParameterConfig(name="x", bounds=(0, 1), parameter_type="float")]
    )
    client.configure_optimization(objective="-y" if minimize else "y")
    curves = []
    for index in range(9):
        steps = np.sort(rng.choice(np.arange(1, 21), size=10, replace=False))
        curves.append({float(s): float(rng.normal()) for s in steps})
        client.attach_trial({"x": float(rng.uniform())})
        for s, value in curves[-1].items():
            client.attach_data(index, {"y": value}, progression=s)
        if index < 8:
            client.complete_trial(index)
    data = client._experiment.lookup_data()
    for percentile, last in product((25.0, 70.0), (2, 4, 7, 10)):
        strategy = PercentileEarlyStoppingStrategy(
            percentile_threshold=percentile, min_progression=5, min_curves=4
        )
        rule = EarlyStopping(percentile=percentile, min_steps=5, min_trials=4)
        # Ax judges by the latest step of its data: cut the judged curve short.
        curve = dict(list(curves[8].items())[:last])
        frame = data.full_df
        keep = (frame["trial_index"] != 8) | frame["step"].isin(list(curve))
        short = type(data)(df=pd.DataFrame(frame[keep]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client._experiment, "lookup_data", lambda *a, d=short, **k: d)
            theirs = bool(strategy._should_stop_trials_early({8}, client._experiment))
        sign = -1.0 if minimize else 1.0
        ours = rule.verdict(curve, curves[:8], curves[:8], sign) is not None
        assert ours == theirs, (percentile, last)
        verdicts.add(ours)
    assert verdicts == {True, False}


def test_verdicts_wait_for_steps_trials_and_intervals():
    others = [dict.fromkeys(range(1, 9), 0.0)] * 4
    rule = EarlyStopping(min_steps=3, min_trials=4, interval=2)

    def stopped(*steps, finished=others):
        return rule.verdict(dict.fromkeys(steps, 1.0), finished, finished, -1.0) is not None

    assert not stopped(1, 2)  # too early
    assert stopped(1, 2, 3)
    assert not stopped(1, 2, 3, 4)  # between looks
    assert stopped(1, 2, 3, 4, 5)
    assert stopped(2, 6)
    assert not stopped(3, finished=others[:3])  # too few completed
    assert not stopped(9)  # nobody else has reported there
    good = {3: -1.0}
    assert rule.verdict(good, others, others, -1.0) is None
    assert rule.verdict(good, others, others, 1.0) is not None


def test_the_threshold_verdict_looks_at_the_latest_value():
    rule = EarlyStopping("threshold", threshold=0.5, min_steps=2)
    assert rule.verdict({2: 0.6}, [], [], -1.0)
    assert rule.verdict({2: 0.6, 3: 0.4}, [], [], -1.0) is None
    assert rule.verdict({2: 0.6}, [], [], 1.0) is None


def test_interpolation_is_linear_and_never_beyond_the_reports():
    curve = {1.0: 2.0, 3.0: 6.0}
    assert [interpolate(curve, s) for s in (0, 1, 1.5, 3, 4)] == [None, 2.0, 3.0, 6.0, None]


# ---- learning curves -----------------------------------------------------------------------------
def test_evidence_is_the_product_of_the_one_step_predictives():
    """The chain rule: log p(y) = sum of log p(y_i | y_<i), for one shape on unscaled data."""
    from bo_surrogates.campaign import learning_curve as lc

    rng = np.random.default_rng(0)
    g, y = rng.uniform(size=7), rng.normal(size=7)
    total = 0.0
    for i in range(7):
        _, loc, scale = lc._regression(g[:i], y[:i], g[i])
        total += lc.student_t.logpdf(y[i], 2 * lc.NOISE_SHAPE + i, loc, scale)
    assert total == pytest.approx(lc._regression(g, y, 0.0)[0], rel=1e-9)


@pytest.mark.parametrize("shape", ["power", "exponential"])
def test_extrapolation_finds_where_curves_of_its_families_go(shape):
    rng = np.random.default_rng(1)
    ranks = []
    for _ in range(100):
        c, a = rng.normal(), rng.uniform(0.5, 2)
        t = rng.uniform(0.3, 1.5) if shape == "power" else rng.uniform(3, 15)
        steps = np.arange(1, 101.0)
        g = steps**-t if shape == "power" else np.exp(-t * (steps - 1) / 100)
        truth = c + a * g
        y = truth + 0.01 * rng.normal(size=100)
        prediction = extrapolate(dict(zip(steps[:30], y[:30], strict=True)), 100.0)
        ranks.append(prediction.cdf(y[-1]))
        assert prediction.weights.sum() == pytest.approx(1.0)
    # Calibrated: of intervals with a probability of 0.9, 90 of 100 hold the end, of 0.99 ones 99;
    # fewer than these would (binomial) in less than one case in a million, and the seed is fixed.
    assert sum(0.05 < r < 0.95 for r in ranks) >= 73
    assert sum(0.005 < r < 0.995 for r in ranks) >= 92


def test_extrapolation_does_not_depend_on_units_and_narrows_with_steps():
    steps = np.arange(1, 41.0)
    rng = np.random.default_rng(2)
    y = 0.2 + steps**-0.7 + 0.003 * rng.normal(size=40)
    widths = []
    for n in (5, 10, 20, 40):
        curve = dict(zip(steps[:n], y[:n], strict=True))
        one = extrapolate(curve, 80.0)
        other = extrapolate({s: 50 - 1000 * v for s, v in curve.items()}, 80.0)
        assert other.mean == pytest.approx(50 - 1000 * one.mean, rel=1e-6)
        assert other.cdf(50 - 1000 * 0.3) == pytest.approx(1 - one.cdf(0.3), abs=1e-6)
        widths.append(one.cdf(one.mean + 0.05) - one.cdf(one.mean - 0.05))
    assert widths == sorted(widths)
    assert widths[-1] > 0.95


def test_the_learning_curve_verdict_compares_the_predicted_end_with_the_best_end():
    steps = range(1, 21)
    rule = EarlyStopping("learning_curve", final_step=50, min_steps=10, min_trials=1)
    completed = [{s: 0.1 + 1 / s for s in range(1, 51)}]  # ends at 0.12
    slow = {s: 0.05 + 3 / s for s in steps}  # worse up to now, ends at 0.11
    bad = {s: 0.5 + 1 / s for s in steps}
    assert rule.verdict(slow, completed, completed, -1.0) is None
    assert "would end worse than the best so far" in rule.verdict(bad, completed, completed, -1.0)
    negated = [{s: -v for s, v in c.items()} for c in (bad, *completed)]
    assert rule.verdict(negated[0], negated[1:], negated[1:], 1.0)
    median = EarlyStopping(min_steps=10, min_trials=1)
    assert median.verdict(slow, completed, completed, -1.0)  # what the extrapolation avoids


# ---- campaigns -----------------------------------------------------------------------------------
def course(database, black_box=train, workers=1, **more):
    with Campaign.create(spec(**more), database) as campaign:
        campaign.run(black_box, workers=workers)
        return campaign.trials, campaign.progress(), campaign.best()


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory):
    return course(tmp_path_factory.mktemp("net") / "c.db")


def test_a_stopped_trial_has_reports_and_a_reason_but_no_result(one_worker):
    trials, progress, best = one_worker
    statuses = [t.status for t in trials]
    assert statuses[:3] == ["completed"] * 3
    assert 0 < statuses.count("stopped") < 9
    for t in trials:
        reported = [r.step for r in progress[t.index]]
        if t.status == "stopped":
            assert not t.measurements
            assert t.reason.startswith(f"stopped at step {reported[-1]:g}: ")
            assert reported[-1] < 8
        else:
            assert t.value("loss") == t.parameters["x"]
            assert reported == [1, 2, 3, 4, 5, 6, 7, 8]
    assert best.status == "completed"
    assert best.value("loss") == min(t.parameters["x"] for t in trials)


def test_verdicts_in_batches_do_not_depend_on_the_number_of_workers(one_worker, tmp_path):
    trials, progress, _ = course(tmp_path / "c.db", workers=3)
    assert [(t.parameters, t.status, t.reason) for t in trials] == [
        (t.parameters, t.status, t.reason) for t in one_worker[0]
    ]
    assert {i: [(r.step, r.measurement) for r in rs] for i, rs in progress.items()} == {
        i: [(r.step, r.measurement) for r in rs] for i, rs in one_worker[1].items()
    }


def test_a_resumed_campaign_judges_as_an_uninterrupted_one(one_worker, tmp_path):
    calls = 0

    def interrupted(x, report):
        nonlocal calls
        calls += 1
        if calls == 8:
            report(1, loss=123.0)  # of an attempt that came to nothing
            raise KeyboardInterrupt
        return train(x, report)

    with Campaign.create(spec(), tmp_path / "c.db") as campaign:
        with pytest.raises(KeyboardInterrupt):
            campaign.run(interrupted)
        campaign.run(train)
        assert [(t.parameters, t.status, t.reason) for t in campaign.trials] == [
            (t.parameters, t.status, t.reason) for t in one_worker[0]
        ]
        assert campaign.trials[7].attempt == 2
        assert 123.0 not in [r.measurement.mean for r in campaign.progress(7)[7]]


def test_the_surrogate_is_not_fitted_to_stopped_trials_and_avoids_their_points(tmp_path):
    quick = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20)
    with Campaign.create(spec(initial=6, acquisition=quick), tmp_path / "c.db") as c:
        c.run(train)
        trials = c.trials
        assert trials[-1].origin == "gp"
        search = c._ax()._adapter.generator.asked.search
        stopped = {t.index for t in trials if t.status == "stopped"}
        stopped -= {9, 10, 11}  # what became of the last batch nobody needed to know
        assert stopped
        for trial in trials[:9]:
            x = c.spec.space.encode(trial.parameters)
            learnt, avoided = (
                (x == X).all(dim=-1).any() for X in (search.X_observed, search.X_pending)
            )
            assert bool(avoided) == (trial.index in stopped)
            assert bool(learnt) != bool(avoided)


COMMAND = f"""{sys.executable} -c "
import json, signal, sys, time
x = json.load(sys.stdin)['x']
if x > 0.5:
    signal.signal(signal.SIGTERM, lambda *a: print('asked to end', flush=True))
for step in range(1, 9):
    print('epoch', step)
    print(json.dumps({{'step': step, 'loss': x}}), flush=True)
    if step > 4: time.sleep(600)
print(json.dumps({{'loss': x}}))
" """


@pytest.mark.parametrize("x", [0.2, 0.8])
def test_a_command_reports_by_lines_and_is_ended_by_signals(x, monkeypatch, tmp_path):
    box = make_black_box(BlackBoxSource("command", COMMAND), space=SPACE, metrics=("loss",))
    seen = []
    with ProcessPool(box, on_report=lambda task, s, m: bool(seen.append((s, m))) or s < 4) as pool:
        monkeypatch.setattr("bo_surrogates.campaign.execution.child_process.STOPPING_SECONDS", 3.0)
        (outcome,) = pool.run([Task(0, {"x": x}, 1, log=str(tmp_path / "log"))])
    assert [s for s, _ in seen] == [1, 2, 3, 4]
    assert seen[0][1]["loss"].mean == x
    assert outcome.measurements is None
    if x < 0.5:
        assert "SIGTERM" in outcome.reason
    else:  # it ignores SIGTERM
        assert "asked to end" in (tmp_path / "log").read_text()
        assert outcome.failure == "timeout"
    assert "epoch 1" in (tmp_path / "log").read_text()


def test_a_report_of_nonsense_fails_the_trial_with_its_reason(tmp_path):
    def nonsense(x, report):
        report(1, loss=float("nan"))

    with Campaign.create(spec(budget=1, initial=1), tmp_path / "c.db") as campaign:
        campaign.run(nonsense)
        assert "report at step 1: metric 'loss' is NaN" in campaign.trials[0].reason


# ---- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"strategy": "median"}, "unknown strategy 'median'"),
        ({"percentil": 50}, "unknown key 'percentil'; did you mean 'percentile'"),
        ({"percentile": 0}, r"percentile must be a number in \(0, 100\)"),
        ({"percentile": True}, "percentile must be a number"),
        ({"min_trials": 0}, "min_trials must be an integer >= 1"),
        ({"interval": -1}, "interval must be a number"),
        ({"strategy": "threshold"}, "needs 'threshold'"),
        ({"strategy": "learning_curve"}, "needs 'final_step'"),
        ({"direction": "up"}, "direction must be 'minimize' or 'maximize'"),
    ],
)
def test_a_mistake_is_named(data, message):
    with pytest.raises(InputError, match=message):
        EarlyStopping.from_dict(data)


def test_what_early_stopping_cannot_judge_is_refused():
    with pytest.raises(InputError, match="judges one objective"):
        CampaignSpec(
            name="two", space=SPACE, objectives=(Objective("a"), Objective("b")),
            early_stopping=EarlyStopping(),
        )  # fmt: skip
    with pytest.raises(InputError, match="say its direction"):
        spec(early_stopping=EarlyStopping(metric="accuracy"))
    with pytest.raises(InputError, match="exclude each other"):
        spec(replicates=2)
    whole = spec(early_stopping=EarlyStopping(metric="accuracy", direction="maximize"))
    assert CampaignSpec.from_dict(whole.to_dict()) == whole
