"""Reading a user's TOML file: what is wrong is said once, with the place in the file.

Campaign files and study files are read by these.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bo_surrogates.errors import InputError, did_you_mean


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        path: The file.
        what: How messages call such a file, e.g. "campaign file".

    Raises:
        InputError: The file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no {what} {str(path)!r}; check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a text file in UTF-8 ({error.reason}); save it as one"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


@contextmanager
def at(where: str) -> Iterator[None]:
    """Say where in the file a mistake is."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None


def check_keys(
    table: Mapping[Any, Any], known: Sequence[str], what: str = "", *, top_level: Sequence[str] = ()
) -> None:
    """Refuse unknown keys; one of `top_level` in another table was meant to be above it."""
    for key in table:
        if key in known:
            continue
        if key in top_level and known is not top_level:
            # In TOML whatever follows a table's header belongs to the table.
            raise InputError(
                f"{key!r} does not belong here; move it to the top of the file, above the first "
                "table ([...] or [[...]])"
            )
        raise InputError(
            f"unknown key {key!r}{' ' + what if what else ''}{did_you_mean(key, known)}"
        )


def required(table: Mapping[str, Any], key: str, expected: str) -> Any:
    """The value of a key that must be there."""
    if key not in table:
        raise InputError(f"{key!r} is missing; expected {expected}")
    return table[key]


def table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The table `[key]`, empty where there is none."""
    found = data.get(key, {})
    if not isinstance(found, Mapping):
        raise InputError(f"{key} must be a table, written [{key}], got {found!r}")
    return found


def tables(data: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The tables of an array of tables, each with how messages call it."""
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(t, Mapping) for t in found):
        raise InputError(f"{key} must be tables, each written [[{key}]], got {found!r}")
    named = []
    for number, one in enumerate(found, start=1):
        name = one.get("name")
        named.append((f"[[{key}]] {number}" + (f" ({name!r})" if name else ""), one))
    return named


def items(data: Mapping[str, Any], key: str, example: list[str]) -> list[Any]:
    """The list at a key, empty where there is none."""
    value = data.get(key, [])
    if not isinstance(value, list):
        raise InputError(f"{key} must be a list such as {example!r}, got {value!r}")
    return value


def check_numbers(data: object, where: str = "") -> None:
    """Refuse integers beyond 64 bits, which TOML does not have: they overflow later on."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            check_numbers(value, f"{where}.{key}" if where else str(key))
    elif isinstance(data, list | tuple):
        for value in data:
            check_numbers(value, where)
    elif isinstance(data, int) and not -(2**63) <= data < 2**63:
        raise InputError(f"{where}: an integer must fit in 64 bits, got one that does not")
