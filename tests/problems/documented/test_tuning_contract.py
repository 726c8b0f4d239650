"""What every tuning problem in the registry must do, each at its reduced options."""

import math
import pickle

import pytest
import torch

from bo_surrogates.campaign.black_box import make_black_box, read_result
from bo_surrogates.campaign.spec import BlackBoxSource
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.seeding import fixed_seed
from problems import PROBLEMS
from problems.documented.tuning_problem import COSTS, TuningProblem

TUNING = [n for n, e in PROBLEMS.items() if issubclass(e.problem_class, TuningProblem)]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Teachers are kept in a folder of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=TUNING)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def make(name):
    entry = PROBLEMS[name]
    return lambda **options: entry.make(**{**entry.problem_class.reduced, **options})


@pytest.fixture(scope="module")
def problem(make):
    return make()


@pytest.fixture(scope="module")
def evaluated(problem):
    """Metrics of the published default at seed 1, and what was reported on the way."""
    reports = []

    def report(epoch, **metrics):
        reports.append((epoch, metrics))
        return True

    return problem.measurements(problem.published_default, seed=1, report=report), reports


@pytest.fixture(scope="module")
def trained(problem):
    return problem.train_best(problem.published_default, seed=3)


def test_the_published_default_is_a_point_of_the_space(problem):
    assert problem.space.validate(problem.published_default) == problem.published_default


def test_every_metric_is_finite_and_better_than_nothing(problem, evaluated):
    measured, _ = evaluated
    assert tuple(measured) == problem.metrics
    assert all(math.isfinite(mean) and sem is None for mean, sem in measured.values())
    assert 0 <= measured.get("error", (0.0, None))[0] < 1


def test_an_evaluation_is_a_function_of_its_seed_whatever_threads_and_process(problem, evaluated):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with fixed_seed(99):
            before = torch.get_rng_state()
            sent = pickle.loads(pickle.dumps(problem))
            found = sent.evaluate(problem.published_default, seed=1)
            assert torch.equal(torch.get_rng_state(), before)  # the caller's stream is left alone
    finally:
        torch.set_num_threads(threads)
    assert found == {metric: mean for metric, (mean, _) in evaluated[0].items()}


def test_both_faces_measure_the_same(problem, evaluated):
    X = problem.space.encode(problem.published_default).unsqueeze(0)
    assert problem.observe(X, seed=1)[0].tolist() == [mean for mean, _ in evaluated[0].values()]


def test_epochs_are_reported_with_every_metric_and_end_where_the_campaign_says(problem, evaluated):
    _, reports = evaluated
    assert reports, "nothing was reported before the end"
    epochs = [epoch for epoch, _ in reports]
    assert epochs == sorted(set(epochs))
    for _, metrics in reports:
        assert tuple(metrics) == problem.metrics
        assert all(math.isfinite(value) for value in metrics.values())
    asked = []
    problem.measurements(
        problem.published_default, seed=1, report=lambda e, **m: asked.append(e) or False
    )
    assert asked == epochs[:1]


def test_a_campaign_s_black_box_gets_standard_errors_and_reports(name, problem, evaluated):
    source = BlackBoxSource("problem", name)
    black_box = make_black_box(
        source, space=problem.space, metrics=problem.metrics,
        resolve_problem=lambda name, options: problem,
    )  # fmt: skip
    seen = []
    raw = black_box(problem.published_default, 0, 1, report=lambda e, **m: seen.append(e) or True)
    assert read_result(raw, problem.metrics) == evaluated[0]
    assert seen == [epoch for epoch, _ in evaluated[1]]


def test_the_cost_is_that_of_the_trained_network_and_known_before(problem, trained, make):
    after = problem.network_cost(trained, problem.published_default)
    assert after.ace > 0
    if not problem.cost_is_known:
        with pytest.raises(InputError, match="is known after"):
            problem.cost(problem.published_default)
        return
    before = problem.cost(problem.published_default)
    assert before.parameters > 0
    assert (before.ace, before.bits, before.parameters) == (
        after.ace, after.bits, after.parameters,
    )  # fmt: skip


def test_a_trained_network_is_rebuilt_from_the_point_and_its_weights(problem, trained):
    rebuilt = problem.rebuild(problem.published_default, problem.details(trained))
    rebuilt.load_state_dict(trained.state_dict())
    x = problem.data().test_x[:20]
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(x), trained(x))


def test_any_cost_may_be_an_objective_or_have_a_budget(make, problem):
    every = make(objectives=["error", *COSTS])
    own = tuple(c.metric for c in problem.constraints)  # on metrics of its own
    assert not set(own) & set(COSTS)
    assert every.metrics == ("error", *COSTS, *own)
    assert all(o.reference is not None for o in every.objectives)
    bounded = make(macs_budget=2.0)
    assert [c.metric for c in bounded.constraints] == ["log_macs", *own]
    with pytest.raises(InputError, match="unknown objective 'log_aces'; did you mean 'log_ace'"):
        make(objectives=["log_aces"])
    with pytest.raises(InputError, match="'log_macs' has a budget already"):
        make(objectives=["error", "log_macs"], macs_budget=2.0)


def test_epochs_may_be_the_fidelity_of_an_evaluation(make, problem):
    several = make(fidelity="epochs", epochs=8)
    (epochs,) = [p for p in several.space.parameters if p.name not in problem.space.names]
    assert (epochs.name, epochs.low, epochs.high, epochs.fidelity) == ("epochs", 1, 8, True)
    assert several.space.contains(several.published_default)
    seen = []
    several.measure({**several.published_default, "epochs": 2}, 0, seen.append)
    full = make(epochs=2)
    assert [e.loss for e in seen] == record(full)
    with pytest.raises(InputError, match="fidelity: unknown parameter 'epoch'; did you mean"):
        make(fidelity="epoch")


def record(problem):
    seen = []
    problem.measure(problem.published_default, 0, seen.append)
    return [e.loss for e in seen]


def test_replicates_give_a_mean_and_its_standard_error(make, evaluated):
    twice = make(replicates=2)
    measured = twice.measurements(twice.published_default, seed=1)
    assert all(sem is not None and sem >= 0 for _, sem in measured.values())
    for metric in set(measured) & set(COSTS):
        assert measured[metric][1] == 0


def test_a_killed_evaluation_goes_on_where_it_was(make, evaluated, tmp_path):
    problem = make(checkpoints=str(tmp_path))

    class KilledError(Exception):
        pass

    def kill(epoch, **metrics):
        raise KilledError

    with pytest.raises(KilledError):
        problem.measurements(problem.published_default, seed=1, report=kill)
    assert len(list(tmp_path.iterdir())) == 1
    seen = []
    measured = problem.measurements(
        problem.published_default, seed=1, report=lambda e, **m: seen.append(e) or True
    )
    assert measured == evaluated[0]
    assert seen == [epoch for epoch, _ in evaluated[1]][1:]
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_diverges_is_a_failed_evaluation_with_its_reason(make):
    problem = make()
    data = problem.data()
    with torch.no_grad():
        original = data.train_x.clone()
        data.train_x.fill_(math.nan)
    try:
        with pytest.raises(RunError, match="diverged"):
            problem.evaluate(problem.published_default, seed=0)
    finally:
        data.train_x.copy_(original)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_the_same_network(make, problem):
    metrics = make(device="cuda").evaluate(problem.published_default, seed=1)
    assert all(math.isfinite(value) for value in metrics.values())
