"""Linear inequalities on the values of parameters.

As text, a name that Python could not read as one stands between backticks:
"2*`bath temperature (°C)` + x <= 300".
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bo_surrogates.errors import InputError
from bo_surrogates.space.parameters import Value


@dataclass(frozen=True)
class LinearConstraint:
    """`sum_i coefficients[name_i] * value_i <= upper` on float and int parameters.

    It applies where all of its parameters are active.
    """

    coefficients: Mapping[str, float]
    upper: float

    @classmethod
    def parse(cls, expression: str) -> LinearConstraint:
        """From text such as `"x1 + 2*x2 <= 3"` or `"x1 >= x2"`.

        Raises:
            InputError: The text is not one linear inequality with <= or >=.
        """
        text, quoted = _unquoted(expression)
        sides = re.split(r"(<=|>=)", text)
        if len(sides) != 3:
            raise InputError(
                f"parameter constraint {expression!r}: expected one <= or >=, "
                "as in 'x1 + 2*x2 <= 3'"
            )
        left, right = (_linear(side, expression, quoted) for side in sides[::2])
        sign = 1.0 if sides[1] == "<=" else -1.0
        names = [n for n in {**left, **right} if n]
        total = {n: sign * (left.get(n, 0.0) - right.get(n, 0.0)) for n in names}
        return cls(
            {n: c for n, c in total.items() if c},
            sign * (right.get("", 0.0) - left.get("", 0.0)),
        )

    def slack(self, values: Mapping[str, Value]) -> float:
        """`upper` less the weighted sum: not negative where the constraint holds."""
        return self.upper - sum(c * float(values[n]) for n, c in self.coefficients.items())

    def __str__(self) -> str:
        terms = " + ".join(f"{c:g}*{_quoted(n)}" for n, c in self.coefficients.items())
        return f"{terms} <= {self.upper:g}"


def parse_constraints(expression: str) -> list[LinearConstraint]:
    """As `LinearConstraint.parse`, and an equation such as `"a + b + c == 1"` as two inequalities.

    Raises:
        InputError: The text is neither one linear inequality nor one linear equation.
    """
    quoted = re.compile(r"`[^`]*`|==")
    text = expression if isinstance(expression, str) else ""
    equals = [m for m in quoted.finditer(text) if m[0] == "=="]
    if len(equals) != 1:
        return [LinearConstraint.parse(expression)]
    left, right = text[: equals[0].start()], text[equals[0].end() :]
    return [LinearConstraint.parse(f"{left} {op} {right}") for op in ("<=", ">=")]


def _unquoted(expression: object) -> tuple[str, dict[str, str]]:
    """The text with a word for each name between backticks, and the names by these words."""
    if not isinstance(expression, str):
        return "", {}
    parts = expression.split("`")
    if len(parts) % 2 == 0 or not all(name.strip() for name in parts[1::2]):
        raise InputError(
            f"parameter constraint {expression!r}: a backtick or a name between two is missing; a "
            "name that is no word is written as in '`bath temperature` <= 80'"
        )
    stem = "_" * (len(expression) + 1)  # longer than any word in it
    names = {f"{stem}{i}": name for i, name in enumerate(parts[1::2])}
    parts[1::2] = [f" {word} " for word in names]
    return "".join(parts), names


def _quoted(name: str) -> str:
    """A name as `parse` reads it."""
    plain = name.isidentifier() and name.isascii() and not keyword.iskeyword(name)
    return name if plain else f"`{name}`"


def _linear(text: str, whole: str, names: Mapping[str, str]) -> dict[str, float]:
    """Coefficients of a linear expression; the constant stands under the empty name."""

    def walk(node: ast.expr) -> dict[str, float]:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(
                number, bool
            ) and math.isfinite(number):
                return {"": float(number)}
            case ast.Name(id=name):
                return {names.get(name, name): 1.0}
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return {n: -c for n, c in walk(operand).items()}
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return walk(operand)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                a, b = walk(left), walk(right)
                sign = 1.0 if isinstance(op, ast.Add) else -1.0
                return {n: a.get(n, 0.0) + sign * b.get(n, 0.0) for n in {**a, **b}}
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                a, b = walk(left), walk(right)
                if set(b) == {""}:
                    a, b = b, a
                if set(a) == {""}:
                    return {n: a[""] * c for n, c in b.items()}
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                a, b = walk(left), walk(right)
                if set(b) == {""} and b[""] != 0:
                    return {n: c / b[""] for n, c in a.items()}
        raise InputError(
            f"parameter constraint {whole!r}: {shown(ast.unparse(node))!r} is not linear in the "
            "parameters"
        )

    def shown(part: str) -> str:
        for word, name in names.items():
            part = part.replace(word, f"`{name}`")
        return part

    try:
        return walk(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"parameter constraint {whole!r}: cannot read {shown(text.strip())!r}; write sums of "
            "number*parameter, with a name that is no word between backticks"
        ) from None
