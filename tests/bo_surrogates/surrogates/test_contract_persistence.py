"""Saving and loading: everything learnt is in the state, and the file holds no pickle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES, Surrogate, SurrogateEntry, load_surrogate

from .conftest import BOUNDS, Fitted, build, cheap_config, measurements, points


def assert_identical(a: Surrogate, b: Surrogate) -> None:
    X = points(5)
    for noise in (False, True):
        first, second = (m.posterior(X, observation_noise=noise) for m in (a, b))
        assert torch.equal(first.mean, second.mean)
        assert torch.equal(first.variance, second.variance)
    assert torch.equal(a.sample_functions(2, seed=3)(X), b.sample_functions(2, seed=3)(X))


def test_a_loaded_model_predicts_identically(fitted: Fitted, tmp_path: Path) -> None:
    fitted.model.save(tmp_path / "model")
    loaded = load_surrogate(tmp_path / "model")
    assert_identical(fitted.model, loaded)
    assert loaded.entry_name == fitted.model.entry_name
    assert loaded.config == fitted.model.config
    assert loaded.seed == fitted.model.seed
    assert loaded.diagnostics == fitted.model.diagnostics


def test_a_loaded_model_is_a_warm_start(entry: SurrogateEntry, one: Fitted, tmp_path: Path) -> None:
    one.model.save(tmp_path / "model")
    X, Y = measurements(n=16)
    from_file = build(entry, X, Y, warm_start=load_surrogate(tmp_path / "model"))
    assert_identical(from_file, build(entry, X, Y, warm_start=one.model))


def test_models_with_variances_and_categories_survive_a_round_trip(
    entry: SurrogateEntry, tmp_path: Path
) -> None:
    X, Y = measurements(12)
    dtype = torch.float32
    X[:, 0] = torch.arange(12) % 3
    bounds = torch.stack([BOUNDS[0], BOUNDS[1]])
    bounds[:, 0] = torch.tensor([0.0, 2.0])
    options = {"train_Yvar": 0.01 * torch.ones_like(Y).to(dtype)}
    if not entry.capabilities.observation_variance:
        options = {}
    model = build(
        entry, X.to(dtype), Y.to(dtype), bounds=bounds, categorical_features={0: 3}, **options
    )
    model.save(tmp_path / "model")
    loaded = load_surrogate(tmp_path / "model")
    new = X[:3].to(dtype)
    assert torch.equal(loaded.posterior(new).mean, model.posterior(new).mean)
    assert torch.equal(loaded.posterior(new).variance, model.posterior(new).variance)


def test_the_state_holds_everything_that_was_learnt(entry: SurrogateEntry, fitted: Fitted) -> None:
    data = fitted.model.training_data
    assert data is not None
    fresh = entry._construct(data, cheap_config(entry), seed=fitted.model.seed)
    fresh.load_state_dict(fitted.model.state_dict())
    assert_identical(fitted.model, fresh.eval())


def test_the_file_is_safetensors(one: Fitted, tmp_path: Path) -> None:
    path = tmp_path / "model"
    one.model.save(path)
    with safe_open(str(path), framework="pt") as file:
        assert any(key.startswith("state.") for key in file.keys())  # noqa: SIM118
        header = json.loads(file.metadata()["bo_surrogates"])
    assert header["surrogate"] == one.model.entry_name
    assert header["config"] == one.model.config.to_dict()


def rewrite(path: Path, **changes: object) -> None:
    """Change the header of a saved model."""
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["bo_surrogates"])
    header = {k: v for k, v in (header | changes).items() if v is not None}
    save_file(tensors, str(path), metadata={"bo_surrogates": json.dumps(header)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "cannot read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot read"),
        (lambda path: path.write_bytes(b"not a model"), "cannot read"),
        (lambda path: save_file({"a": torch.zeros(2)}, str(path)), "Surrogate.save"),
        (lambda path: rewrite(path, format=999), "newer version"),
        (lambda path: rewrite(path, surrogate="no such entry"), "unknown surrogate"),
        (lambda path: rewrite(path, config={"no_such_field": 1}), "no_such_field"),
        (lambda path: rewrite(path, seed=None), "damaged"),
        (lambda path: rewrite(path, format=None), "damaged"),
    ],
    ids=[
        "missing",
        "truncated",
        "garbage",
        "foreign",
        "newer",
        "entry",
        "config",
        "seed",
        "format",
    ],
)
def test_unreadable_files_are_refused(
    one: Fitted, tmp_path: Path, damage: object, message: str
) -> None:
    path = tmp_path / "model"
    one.model.save(path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        load_surrogate(path)


def test_a_file_whose_tensors_do_not_fit_is_refused(one: Fitted, tmp_path: Path) -> None:
    path = tmp_path / "model"
    one.model.save(path)
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    name = next(key for key in tensors if key.startswith("state."))
    del tensors[name]
    save_file(tensors, str(path), metadata=metadata)
    with pytest.raises(InputError, match="damaged"):
        load_surrogate(path)


def test_a_model_built_by_hand_cannot_be_saved(
    entry: SurrogateEntry, one: Fitted, tmp_path: Path
) -> None:
    model = entry.model_class(one.X, one.Y, config=cheap_config(entry), seed=0)
    with pytest.raises(InputError, match="build"):
        model.save(tmp_path / "model")


def test_data_that_the_surrogate_does_not_take_are_refused_when_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = SURROGATES["rff"]
    X, Y = measurements()
    X[:, 0] = torch.arange(len(X)) % 3
    bounds = torch.cat([torch.tensor([[0.0], [2.0]]).double(), BOUNDS[:, 1:]], dim=-1)
    build(entry, X, Y, bounds=bounds, categorical_features={0: 3}).save(tmp_path / "model")
    load_surrogate(tmp_path / "model")
    capabilities = replace(entry.capabilities, categorical=False)
    monkeypatch.setitem(SURROGATES._entries, "rff", replace(entry, capabilities=capabilities))
    with pytest.raises(InputError, match=r"'rff' does not take categorical inputs \(input 0\)"):
        load_surrogate(tmp_path / "model")
