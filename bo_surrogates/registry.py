"""One generic registry: a name leads to an entry. Surrogates and problems both use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar

from bo_surrogates.errors import InputError, RunError, did_you_mean


class Named(Protocol):
    """Anything with a `name`."""

    @property
    def name(self) -> str:
        """The name under which the entry is found."""


E = TypeVar("E", bound=Named)


class Registry(Mapping[str, E], Generic[E]):
    """Entries by name, in order of registration.

    Args:
        kind: What an entry is, for messages ("surrogate", "problem").
        group: Entry-point group through which other distributions add entries. Each entry
            point names an object that is an entry; it is loaded on first use of the registry.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, E] = {}
        self._third_party_loaded = group is None
        self._loaded: set[str] = set()  # values of the entry points that are registered

    def register(self, entry: E) -> E:
        """Add an entry and return it.

        Raises:
            InputError: An entry of that name is there already.
        """
        if entry.name in self._entries:
            raise InputError(f"a {self.kind} named {entry.name!r} is registered already")
        self._entries[entry.name] = entry
        return entry

    def _load_third_party(self) -> None:
        if self._third_party_loaded or self._group is None:
            return
        self._third_party_loaded = True  # before loading: the entry's package may use this registry
        for point in entry_points(group=self._group):
            if point.value in self._loaded:
                continue
            try:
                self.register(point.load())
                self._loaded.add(point.value)
            except Exception as error:
                self._third_party_loaded = False  # so that the next use says so again
                raise RunError(
                    f"the {self.kind} {point.name!r} of another package ({point.value}) could not "
                    f"be loaded: {error}; mend or uninstall that package"
                ) from error

    def __getitem__(self, name: str) -> E:
        self._load_third_party()
        try:
            return self._entries[name]
        except KeyError:
            hint = did_you_mean(name, self._entries)
            raise InputError(f"unknown {self.kind} {name!r}{hint}") from None

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of that name, or `default`."""
        return self[name] if name in self else default  # noqa: SIM401 (this is `get`)

    def __contains__(self, name: object) -> bool:
        self._load_third_party()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load_third_party()
        return iter(sorted(self._entries))  # whatever the order of imports

    def __len__(self) -> int:
        self._load_third_party()
        return len(self._entries)
