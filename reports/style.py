"""How every figure looks: colour-blind safe, legible at the width of a column."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bo_surrogates.errors import InputError, RunError

# Okabe and Ito (2008), Color Universal Design: told apart by all common kinds of colour vision.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#8A8A8A"
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
FORMATS = (".png", ".svg", ".pdf")
DPI = 160

_RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw inside this, whatever the user's own matplotlib settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def new_figure(width: float = 6.0, height: float = 4.2) -> Figure:
    """A figure of its own (no global state), in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, SVG or PDF, by the file's ending.

    Raises:
        InputError: Another ending.
        RunError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"{path}: a figure is written as one of {', '.join(FORMATS)}, not {path.suffix!r}"
        )
    # Neither dates nor random names inside: the same figure is the same file.
    dated = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix.lower())
    try:
        with matplotlib.rc_context({"svg.hashsalt": "bo-surrogates"}):
            figure.savefig(path, dpi=DPI, metadata={dated: None} if dated else None)
    except OSError as error:
        raise RunError(f"cannot write the figure {path}: {error}") from error
    return path


def shorten(text: str, length: int) -> str:
    """A text cut to at most `length` characters, with its beginning and its end."""
    if len(text) <= length:
        return text
    head = (2 * (length - 1) + 2) // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def distinct(texts: Sequence[str], length: int) -> list[str]:
    """Texts cut to about `length` characters and still told apart, where they differ at all.

    Where their beginnings and ends are the same, these are cut off first.
    """
    short = [shorten(t, length) for t in texts]
    if len(set(short)) == len(set(texts)):
        return short
    head = _shared(texts)
    tail = _shared([t[head:][::-1] for t in texts])
    core = [t[head : len(t) - tail] for t in texts]
    # Whole words where the rest is not too long: "number 3", not "3".
    head = max(texts[0].rfind(" ", 0, max(texts[0].rfind(" ", 0, head), 0)) + 1, 0)
    wordy = [f"…{t[head : len(t) - tail]}…" for t in texts]
    if max(map(len, wordy)) <= length:
        return wordy
    return [f"…{shorten(c, length - 2)}…" for c in core]


def _shared(texts: Sequence[str]) -> int:
    """How many characters all texts begin with."""
    columns = zip(*texts, strict=False)
    return next(
        (i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, texts))
    )


def wrap(text: str, width: int, lines: int = 3) -> str:
    """A text broken into lines of about `width` characters, long words included."""
    broken = textwrap.wrap(text, width) or [""]
    if len(broken) > lines:
        broken = [*broken[: lines - 1], shorten(" ".join(broken[lines - 1 :]), width)]
    return "\n".join(broken)
