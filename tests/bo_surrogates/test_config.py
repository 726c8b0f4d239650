from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bo_surrogates.config import Config, choice, flag, integer, real, reals, text, words
from bo_surrogates.errors import InputError
from bo_surrogates.space import Choice, Float, Int


@dataclass(frozen=True)
class ExampleConfig(Config):
    rate: float = real(1e-2, 1e-6, 1.0, log=True, search=(1e-4, 1e-1))
    scale: float = real(1.0, 0.0, math.inf)
    variance: float | None = real(None, 0.0, 10.0, optional=True)
    steps: int = integer(100, 1, 1000, log=True)
    draws: int | None = integer(None, 1, 50, optional=True)
    activation: str = choice("tanh", ("tanh", "relu"))
    level: int = choice(2, (1, 2, 4))
    warm: bool = flag(True)
    scales: tuple[float, ...] | None = reals(None, 0.0, 10.0)


@dataclass(frozen=True)
class NarrowConfig(Config):
    _searched: ClassVar[tuple[str, ...] | None] = ("b",)

    a: float = real(0.5, 0.0, 1.0)
    b: float = real(0.5, 0.0, 1.0)


configurations = st.builds(
    ExampleConfig,
    rate=st.floats(1e-6, 1.0),
    scale=st.floats(0.0, allow_nan=False),
    variance=st.none() | st.floats(0.0, 10.0),
    steps=st.integers(1, 1000),
    draws=st.none() | st.integers(1, 50),
    activation=st.sampled_from(["tanh", "relu"]),
    level=st.sampled_from([1, 2, 4]),
    warm=st.booleans(),
    scales=st.none() | st.lists(st.floats(0.0, 10.0), max_size=3),
)


@given(configurations)
def test_plain_data_make_an_equal_configuration(config: ExampleConfig) -> None:
    assert ExampleConfig.from_dict(config.to_dict()) == config
    assert hash(ExampleConfig.from_dict(config.to_dict())) == hash(config)


@given(configurations)
def test_a_configuration_prints_as_the_call_that_makes_it(config: ExampleConfig) -> None:
    assert eval(repr(config), {"ExampleConfig": ExampleConfig, "inf": math.inf}) == config


@given(configurations, st.floats(1e-6, 1.0))
def test_replacing_a_field_changes_that_field_alone(config: ExampleConfig, rate: float) -> None:
    changed = config.replace(rate=rate)
    assert changed.to_dict() == config.to_dict() | {"rate": rate}


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        ExampleConfig().steps = 3  # type: ignore[misc]


def test_values_take_their_fields_type() -> None:
    config = ExampleConfig(rate=1, steps=7.0, draws=3.0)  # type: ignore[arg-type]
    assert isinstance(config.rate, float)
    assert isinstance(config.steps, int)
    assert isinstance(config.draws, int)
    assert ExampleConfig(level=1.0).level == 1  # type: ignore[arg-type]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rate": 2.0}, r"rate must be in \[1e-06, 1\], got 2.0"),
    ({"rate": 0.0}, "rate must be in"),
    ({"rate": math.nan}, "rate must be a number"),
    ({"rate": "0.1"}, "rate must be a number"),
    ({"rate": True}, "rate must be a number"),
    ({"rate": None}, "rate must be a number"),
    ({"scale": -1e-9}, "scale must be in"),
    ({"variance": 11}, "variance must be in"),
    ({"steps": 0}, "steps must be in"),
    ({"steps": 2.5}, "steps must be an integer"),
    ({"steps": math.inf}, "steps must be an integer"),
    ({"draws": False}, "draws must be a number"),
    ({"activation": "Tanh"}, "activation must be one of .*did you mean 'tanh'"),
    ({"activation": 3}, "activation must be one of"),
    ({"level": 3}, "level must be one of"),
    ({"level": True}, "level must be one of"),
    ({"warm": 1}, "warm must be one of"),
    ({"warm": "yes"}, "warm must be one of"),
    ({"scales": 1.0}, "scales must be a list of numbers"),
    ({"scales": "12"}, "scales must be a list of numbers"),
    ({"scales": (1.0, -0.5)}, r"scales\[1\] must be in \[0, 10\], got -0.5"),
    ({"scales": [None]}, r"scales\[0\] must be a number"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_values_out_of_range_are_refused_by_class_and_field(
    fields: dict[str, Any], message: str
) -> None:
    for make in (lambda: ExampleConfig(**fields), lambda: ExampleConfig.from_dict(fields),
                 lambda: ExampleConfig().replace(**fields)):  # fmt: skip
        with pytest.raises(InputError, match=f"ExampleConfig.{message}"):
            make()


def test_an_unknown_field_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="ExampleConfig has no field 'step'; did you mean 'steps'"):
        ExampleConfig.from_dict({"step": 3})
    with pytest.raises(InputError, match="did you mean 'steps'"):
        ExampleConfig().replace(step=3)
    with pytest.raises(InputError, match="table of fields"):
        ExampleConfig.from_dict(3)  # type: ignore[arg-type]


def test_the_search_space_holds_each_field_with_a_finite_range() -> None:
    space = ExampleConfig.search_space()
    assert list(space.parameters) == [
        Float("rate", 1e-4, 1e-1, log=True),
        Float("variance", 0.0, 10.0),
        Int("steps", 1, 1000, log=True),
        Int("draws", 1, 50),
        Choice("activation", ("tanh", "relu")),
        Choice("level", (1, 2, 4)),
        Choice("warm", (False, True)),
    ]


def test_a_class_may_name_what_is_searched() -> None:
    assert NarrowConfig.search_space().names == ("b",)


@given(st.lists(st.floats(0, 1), min_size=7, max_size=7))
def test_every_point_of_the_search_space_is_a_configuration(unit: list[float]) -> None:
    space = ExampleConfig.search_space()
    low, high = space.model_bounds
    Z = low + (high - low) * low.new_tensor(unit)
    values = space.decode(space.from_model(Z))
    config = ExampleConfig.from_dict(values)
    assert {k: v for k, v in config.to_dict().items() if k in values} == values


@pytest.mark.parametrize(
    "make",
    [
        lambda: real(2.0, 0.0, 1.0),
        lambda: integer(0, 1, 3),
        lambda: choice("a", ("b", "c")),
    ],
)
def test_a_default_out_of_range_is_found_when_the_configuration_is_made(make: Any) -> None:
    bad = dataclass(frozen=True)(
        type("BadConfig", (Config,), {"__annotations__": {"field": object}, "field": make()})
    )
    with pytest.raises(InputError, match=r"BadConfig\.field"):
        bad()


# ---- texts and words -----------------------------------------------------------------------------
@dataclass(frozen=True)
class WithWords(Config):
    folder: str = text("")
    wanted: tuple[str, ...] | None = words(None)
    size: int = integer(3, 1, 9)


def test_words_may_be_one_text_and_neither_they_nor_texts_are_searched():
    assert WithWords(wanted="error, bits").wanted == ("error", "bits")
    assert WithWords(wanted=["error"]).wanted == ("error",)
    assert WithWords.from_dict(WithWords(folder="/x", wanted="a b").to_dict()).wanted == ("a", "b")
    assert WithWords.search_space().names == ("size",)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("folder", 3, "must be a text"),
        ("wanted", 3, "must be a list of words"),
        ("wanted", [], "at least one word"),
        ("wanted", ["a", "a"], "none twice"),
    ],
)
def test_what_is_no_text_and_no_words_is_refused_by_name(field, value, complaint):
    with pytest.raises(InputError, match=f"WithWords.{field} .*{complaint}"):
        WithWords(**{field: value})
