from __future__ import annotations

from dataclasses import dataclass

import pytest

from bo_surrogates import registry as registry_module
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.registry import Registry


@dataclass(frozen=True)
class Thing:
    name: str


@dataclass(frozen=True)
class Point:
    """An entry point of another distribution."""

    name: str
    value: str
    thing: object

    def load(self) -> object:
        if isinstance(self.thing, Exception):
            raise self.thing
        return self.thing


def test_entries_are_found_by_name_and_listed_by_it() -> None:
    registry: Registry[Thing] = Registry("thing")
    b, a = registry.register(Thing("b")), registry.register(Thing("a"))
    assert registry["a"] is a
    assert list(registry) == ["a", "b"]
    assert list(registry.values()) == [a, b]
    assert len(registry) == 2
    assert "a" in registry
    assert "c" not in registry


def test_a_name_is_registered_once() -> None:
    registry: Registry[Thing] = Registry("thing")
    first = registry.register(Thing("a"))
    with pytest.raises(InputError, match="thing named 'a' is registered already"):
        registry.register(Thing("a"))
    assert registry["a"] is first


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("ensembel", "unknown thing 'ensembel'; did you mean 'ensemble'"),
        ("GP", "did you mean 'gp'"),
        ("zzz", "known: gp, ensemble"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_or_all(asked: str, message: str) -> None:
    registry: Registry[Thing] = Registry("thing")
    registry.register(Thing("gp"))
    registry.register(Thing("ensemble"))
    with pytest.raises(InputError, match=message):
        registry[asked]


def test_get_falls_back_to_its_default() -> None:
    registry: Registry[Thing] = Registry("thing")
    assert registry.get("a") is None
    fallback = Thing("fallback")
    assert registry.get("a", fallback) is fallback


def install(monkeypatch: pytest.MonkeyPatch, *points: Point) -> list[str]:
    """Pretend that other distributions offer entry points; returns the groups asked for."""
    asked: list[str] = []

    def entry_points(group: str) -> tuple[Point, ...]:
        asked.append(group)
        return points

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    return asked


def test_other_distributions_entries_are_loaded_once_on_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = install(monkeypatch, Point("other", "package:entry", Thing("other")))
    registry: Registry[Thing] = Registry("thing", group="some.group")
    registry.register(Thing("own"))
    assert asked == []
    assert list(registry) == ["other", "own"]
    assert len(registry) == 2
    assert registry["other"] == Thing("other")
    assert asked == ["some.group"]


def test_a_registry_without_a_group_looks_for_no_entry_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = install(monkeypatch, Point("other", "package:entry", Thing("other")))
    assert len(Registry("thing")) == 0
    assert asked == []


@pytest.mark.parametrize("thing", [ImportError("no module named x"), Thing("own")])
def test_an_entry_point_that_cannot_be_loaded_is_named(
    monkeypatch: pytest.MonkeyPatch, thing: object
) -> None:
    install(monkeypatch, Point("other", "package:entry", thing))
    registry: Registry[Thing] = Registry("thing", group="some.group")
    registry.register(Thing("own"))
    for _ in range(2):  # an error is not forgotten by asking again
        with pytest.raises(RunError, match=r"thing 'other' of another package \(package:entry\)"):
            registry["own"]
