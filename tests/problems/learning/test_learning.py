import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import entropy
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.svm import SVR

from bo_surrogates.design import sobol_design
from problems import PROBLEMS
from problems.learning.cross_validated import load
from problems.learning.distillation import _teacher, student
from problems.learning.weighted_lasso import WeightedLassoConfig, draw


# ---- hyper-parameters ----------------------------------------------------------------------------
def test_a_score_is_scikit_learn_s_cross_validated_error():
    problem = PROBLEMS["hyperparameters"].make(model="random_forest", data="wine", fold_seed=3)
    point = {"trees": 12, "max_depth": 4, "max_features": 0.5, "min_samples_leaf": 2,
             "bootstrap": False}  # fmt: skip
    X, y = load("wine")
    forest = RandomForestClassifier(
        12, max_depth=4, max_features=0.5, min_samples_leaf=2, bootstrap=False, random_state=3
    )
    folds = StratifiedKFold(3, shuffle=True, random_state=3)
    accuracy = cross_val_score(forest, X, y, cv=folds)
    sizes = [len(test) for _, test in folds.split(X, y)]
    expected = 1 - np.average(accuracy, weights=sizes)
    x = problem.space.encode(problem.space.validate(point))
    assert problem(x[None], noise=False).item() == pytest.approx(expected)


def test_with_any_model_only_the_chosen_one_s_parameters_are_active_and_reach_it():
    problem = PROBLEMS["hyperparameters"].make(model="any", data="wine")
    seen = set()
    for x in sobol_design(problem.space, 16, 0):
        values = problem.space.decode(x)
        kind = values["model"]
        seen.add(kind)
        assert all(n == "model" or n.startswith(kind) for n in values)
        learner = problem.estimator(values, 0)
        if kind == "mlp":
            assert len(learner.hidden_layer_sizes) == values["mlp_layers"]
            if learner.solver == "adam":
                assert learner.learning_rate_init == values["mlp_learning_rate"]
            else:
                assert "mlp_learning_rate" not in values
        else:
            assert learner.n_estimators == values[f"{kind}_trees"]
    assert seen == {"gradient_boosting", "mlp", "random_forest"}


@pytest.mark.parametrize("data", ["wine", "diabetes"])
@pytest.mark.parametrize("model", ["gradient_boosting", "mlp", "random_forest"])
def test_every_learner_learns_something_on_every_kind_of_data(model, data):
    problem = PROBLEMS["hyperparameters"].make(model=model, data=data)
    scores = problem(sobol_design(problem.space, 1, 2), noise=False)
    assert scores.item() < (0.3 if data == "wine" else 0.8)


def test_observations_differ_by_their_folds_and_the_same_seed_repeats_them():
    problem = PROBLEMS["svm"].make()
    x = sobol_design(problem.space, 1, 0)
    values = [problem(x, seed=s).item() for s in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


# ---- support vector machine ----------------------------------------------------------------------
def test_the_machine_s_kernel_has_a_scale_for_every_feature():
    problem = PROBLEMS["svm"].make(data="diabetes")
    values = problem.space.decode(sobol_design(problem.space, 1, 4)[0])
    X, y = load("diabetes")
    scales = np.array([values[f"scale_{j + 1}"] for j in range(10)])
    target = (y - y.mean()) / y.std()
    distance = ((X[:, None] - X) ** 2 * scales**2).sum(axis=-1) / 10
    machine = SVR(kernel="precomputed", C=values["C"], epsilon=values["epsilon"])
    gram = np.exp(-values["gamma"] * distance)
    expected = machine.fit(gram, target).predict(gram) * y.std() + y.mean()
    found = problem.estimator(values, 0).fit(X, y).predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


# ---- weighted Lasso ------------------------------------------------------------------------------
def test_the_weighted_lasso_is_the_minimum_of_its_objective():
    options = {"features": 4, "samples": 30, "active": 2, "folds": 3}
    problem = PROBLEMS["weighted_lasso"].make(**options)
    r = np.array([0.05, 0.2, 0.1, 0.5])
    X, y = problem._X, problem._y
    total = 0.0
    for train, test in KFold(3, shuffle=True, random_state=0).split(X):
        A, b = X[train] - X[train].mean(axis=0), y[train] - y[train].mean()

        def objective(v, A=A, b=b):  # w = v+ - v-, both not negative: smooth
            w = v[:4] - v[4:]
            smooth = np.square(b - A @ w).sum() / (2 * len(b))
            return smooth + problem._largest * (np.tile(r, 2) * v).sum()

        v = minimize(objective, np.zeros(8), bounds=[(0, None)] * 8, tol=1e-12).x
        w = v[:4] - v[4:]
        predicted = (X[test] - X[train].mean(axis=0)) @ w + y[train].mean()
        total += np.square(y[test] - predicted).sum()
    found = problem(torch.from_numpy(r)[None]).item()
    assert found == pytest.approx(total / len(y), rel=1e-3)


def test_the_largest_penalties_leave_a_constant_and_the_true_support_predicts_well():
    problem = PROBLEMS["weighted_lasso"].make()
    _, _, weights = draw(WeightedLassoConfig())
    everywhere = problem(torch.ones(1, problem.dim, dtype=torch.float64)).item()
    assert 0.9 < everywhere < 1.3
    oracle = torch.where(torch.from_numpy(weights) != 0, 0.01, 1.0)
    noise_share = 1 / (1 + 8.0)
    assert noise_share / 2 < problem(oracle[None]).item() < 0.3


def test_synthetic_features_have_the_stated_correlation_and_noise():
    config = WeightedLassoConfig(features=3, samples=100_000, active=2, correlation=0.6, snr=4.0)
    X, y, weights = draw(config)
    correlation = np.corrcoef(X.T)
    assert correlation[0, 1] == pytest.approx(0.6, abs=0.02)
    assert correlation[0, 2] == pytest.approx(0.36, abs=0.02)
    signal = X @ weights
    assert signal.var() / (y - signal).var() == pytest.approx(4.0, rel=0.03)


# ---- distillation --------------------------------------------------------------------------------
def test_the_divergence_is_the_mean_relative_entropy_over_the_images():
    problem = PROBLEMS["distillation"].make(images=50)
    low, high = problem.bounds
    generator = torch.Generator().manual_seed(0)
    X = low + (high - low) * torch.rand(3, problem.dim, generator=generator, dtype=torch.float64)
    images, log_teacher = (t[:50] for t in _teacher())
    for x, value in zip(X, problem(X), strict=True):
        w1, b1 = x[:128].reshape(16, 8).numpy(), x[128:136].numpy()
        w2, b2 = x[136:216].reshape(8, 10).numpy(), x[216:].numpy()
        logits = np.tanh(images.numpy() @ w1 + b1) @ w2 + b2
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected = entropy(log_teacher.exp().numpy(), probabilities, axis=1).mean()
        assert value.item() == pytest.approx(expected, rel=1e-9)


def test_a_student_trained_by_gradients_comes_closer_than_a_uniform_one():
    problem = PROBLEMS["distillation"].make(images=300)
    weights = 0.3 * torch.randn(1, problem.dim, dtype=torch.float64,
                                generator=torch.Generator().manual_seed(0))  # fmt: skip
    uniform = problem(torch.zeros(1, problem.dim, dtype=torch.float64)).item()
    weights.requires_grad_()
    adam = torch.optim.Adam([weights], lr=0.05)
    for _ in range(80):
        adam.zero_grad()
        problem._true_metrics(weights).sum().backward()
        adam.step()
    assert problem(weights.detach().clamp(*problem.bounds)).item() < 0.3 * uniform


def test_the_teacher_knows_its_digits():
    from sklearn.datasets import load_digits

    _, log_teacher = _teacher()
    assert (log_teacher.argmax(dim=-1).numpy() == load_digits().target).mean() > 0.97


def test_a_batch_of_images_is_an_unbiased_observation():
    problem = PROBLEMS["distillation"].make(images=200, batch=50)
    x = torch.full((1, problem.dim), 0.1, dtype=torch.float64)
    truth = problem(x, noise=False).item()
    observed = torch.tensor([problem(x, seed=s).item() for s in range(200)])
    error = observed.std() / 200**0.5
    assert abs(observed.mean() - truth) < 6 * error
    assert observed.std() > 0


def test_students_are_evaluated_side_by_side():
    images, _ = _teacher()
    weights = torch.randn(3, 226, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = student(weights, images[:5], 8)
    alone = torch.cat([student(w[None], images[:5], 8) for w in weights])
    torch.testing.assert_close(together, alone)
