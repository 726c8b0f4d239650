"""What a registered entry says of itself."""

from __future__ import annotations

import inspect

from bo_surrogates.surrogates import SURROGATES, Surrogate, SurrogateEntry

from .conftest import Fitted, points

KINDS = {
    "gaussian": "GPyTorchPosterior",
    "ensemble": "EnsemblePosterior",
    "mixture": "GaussianMixture",
    "student-t": "StudentTPosterior",
}


def test_an_entry_describes_itself(entry: SurrogateEntry) -> None:
    assert SURROGATES[entry.name] is entry
    assert entry.name == entry.name.lower().strip()
    assert issubclass(entry.model_class, Surrogate)
    assert 10 < len(entry.summary) < 100
    assert entry.paper
    assert entry.capabilities.max_n >= 100
    assert entry.capabilities.max_d >= 10


def test_the_default_configuration_survives_plain_data_and_names_what_is_searched(
    entry: SurrogateEntry,
) -> None:
    config = entry.config_class()
    assert entry.configure(None) == config
    assert entry.configure(config.to_dict()) == config
    space = entry.config_class.search_space()
    assert set(space.names) <= set(config.to_dict())


def test_the_posterior_is_of_the_declared_kind(entry: SurrogateEntry, one: Fitted) -> None:
    expected = KINDS[entry.capabilities.posterior]
    names = {c.__name__ for c in type(one.model.posterior(points(2))).__mro__}
    assert expected in names
    assert ("GPyTorchPosterior" in names) == (entry.capabilities.posterior == "gaussian")


def test_the_constructor_names_its_arguments_as_ax_looks_for_them(entry: SurrogateEntry) -> None:
    parameters = inspect.signature(entry.model_class).parameters
    expected = ["train_X", "train_Y", "train_Yvar", "input_transform", "outcome_transform"]
    assert list(parameters)[:5] == expected
    assert {"config", "seed"} <= set(parameters)
