"""One colour, line and marker for each surrogate, in all figures of all studies.

The surrogates that are compared most have a colour of their own, and the relatives of each its
colour with another line, so that a reader who knows one report reads the next one at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from bo_surrogates.loop import RANDOM
from reports.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

SOLID, DASHED, DOTTED, DASHDOT = (
    "-",
    (0, (4.5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (5, 1.3, 1.2, 1.3)),
)
COLOURS = (BLACK, BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
LINES = (SOLID, DASHED, DOTTED, DASHDOT)
_MARKERS = {
    SOLID: ("o", "s", "^", "D", "v", "P", "X"),
    DASHED: ("<", "h", "o", "s", "d", "^", "*"),
    DOTTED: ("p", "*", "D", "v", "o", "X", "s"),
    DASHDOT: ("H", "d", "P", "<", ">", "h", "p"),
}

_OWN: dict[str, tuple[str, Any]] = {
    "gp": (BLACK, SOLID), "robust_gp": (BLACK, DASHED), "tp": (BLACK, DOTTED),
    "svgp": (BLACK, DASHDOT),
    "nngp": (BLUE, SOLID), "ntk": (BLUE, DASHED), "nngp_t": (BLUE, DOTTED),
    "dkl": (ORANGE, SOLID), "dkm": (ORANGE, DASHED), "saas": (ORANGE, DOTTED),
    "ensemble": (GREEN, SOLID), "mup": (GREEN, DASHED), "mc_dropout": (GREEN, DOTTED),
    "hmc": (VERMILION, SOLID), "ssvi": (VERMILION, DASHED),
    "laplace": (PURPLE, SOLID), "vbll": (PURPLE, DASHED), "rff": (PURPLE, DOTTED),
    "bandlimited": (PURPLE, DASHDOT),
    "sghmc": (SKY, SOLID), "sgld": (SKY, DASHED), "csgld": (SKY, DOTTED),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a surrogate is drawn.

    Attributes:
        colour: As matplotlib takes it.
        line: Line style.
        marker: Told apart from those of other surrogates of the same colour.
    """

    colour: str
    line: Any
    marker: str

    @property
    def dashes(self) -> str:
        """The line's dashes and gaps, of a line one unit wide; empty if solid."""
        return "" if self.line == SOLID else " ".join(f"{d:g}" for d in self.line[1])

    @property
    def curve(self) -> dict[str, Any]:
        """Arguments of a line."""
        return {"color": self.colour, "linestyle": self.line, "linewidth": 1.3}


def looks(surrogates: Mapping[str, str]) -> dict[str, Look]:
    """A look for each surrogate of a study, whatever their order.

    Random search is grey and dotted.

    Args:
        surrogates: Label in the study to registered name.

    Returns:
        By label. A surrogate that takes part once has the look of its name; of several arms of one
        surrogate, the one that is called by its name does, or else the first by label. The others
        take a colour that is free, or else a free pair of colour and line.
    """
    taken: dict[str, tuple[str, Any]] = {}
    searches = [label for label, name in surrogates.items() if name == RANDOM]
    for label in sorted(set(surrogates) - set(searches), key=lambda s: (s != surrogates[s], s)):
        own = _OWN.get(surrogates[label])
        if own is None or own in taken.values():
            own = _free(label, list(taken.values()))
        taken[label] = own
    found = {
        label: Look(*own, _MARKERS[own[1]][COLOURS.index(own[0])]) for label, own in taken.items()
    }
    found |= {label: Look(GREY, DOTTED, "X") for label in searches}  # no surrogate's colour
    return {label: found[label] for label in surrogates}


def _free(label: str, taken: list[tuple[str, Any]]) -> tuple[str, Any]:
    """Where to start is decided by the label, so that it finds the same look again."""
    pairs = [(colour, line) for line, colour in product(LINES, COLOURS)]
    start = zlib.crc32(label.encode()) % len(COLOURS)
    turned = [pairs[i - i % 7 + (i + start) % 7] for i in range(len(pairs))]
    used = {colour for colour, _ in taken}
    reserved = set(_OWN.values())
    for wanted in (
        lambda p: p[0] not in used,
        lambda p: p not in taken and p not in reserved,
        lambda p: p not in taken,
    ):
        found = next((p for p in turned if wanted(p)), None)
        if found is not None:
            return found
    return turned[len(taken) % len(turned)]  # more surrogates than looks: they share
