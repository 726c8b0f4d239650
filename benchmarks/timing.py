"""Timing several things against each other, fairly, on a machine that is never quiet.

Rounds are interleaved, so that a disturbance meets all alike; CPU and wall-clock seconds are both
taken; figures are medians with quartiles, and ratios to a reference are of medians.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

Work = Callable[[int], Mapping[str, Callable[[], object]]]


@dataclass(frozen=True)
class Sample:
    """Seconds of one part of one case in one round."""

    case: str
    part: str
    round: int
    cpu: float
    wall: float


def measure(cases: Mapping[str, Work], rounds: int, warm_up: int = 1) -> list[Sample]:
    """Time the parts of each case, round by round.

    Args:
        cases: By name, a function from the round's number (use it as a seed) to the parts to time,
            in order, each a function of no arguments. Its own time is not counted.
        rounds: How often, >= 1.
        warm_up: Rounds before, not counted: imports, caches, compilers.
    """
    samples = []
    for number in range(-warm_up, rounds):
        for name, work in cases.items():
            for part, run in work(max(number, 0)).items():
                cpu, wall = time.process_time(), time.perf_counter()
                run()
                sample = Sample(
                    name, part, number, time.process_time() - cpu, time.perf_counter() - wall
                )
                if number >= 0:
                    samples.append(sample)
    return samples


def summarize(samples: Sequence[Sample], reference: str | None = None) -> list[dict[str, Any]]:
    """Median and quartiles by case and part, and the ratio of median CPU seconds to a reference's.

    Args:
        samples: From `measure`.
        reference: The case to compare with.
    """
    groups: dict[tuple[str, str], list[Sample]] = {}
    for s in samples:
        groups.setdefault((s.case, s.part), []).append(s)
    rows = []
    for (case, part), group in groups.items():
        cpu = [s.cpu for s in group]
        low, _, high = quantiles(cpu, n=4) if len(cpu) > 1 else (cpu[0],) * 3
        row: dict[str, Any] = {
            "case": case, "part": part, "rounds": len(cpu), "cpu": median(cpu), "cpu_q25": low,
            "cpu_q75": high, "wall": median(s.wall for s in group),
        }  # fmt: skip
        against = groups.get((reference, part)) if reference else None
        row["ratio"] = row["cpu"] / median(s.cpu for s in against) if against else None
        rows.append(row)
    return rows


def report(
    title: str, rows: Sequence[Mapping[str, Any]], reference: str, path: Path | None = None
) -> None:
    """Print a table, and write it as JSON with what it was measured on."""
    table = Table(title=title, box=None, header_style="bold")
    for column in ("case", "part", "CPU s", "quartiles", "wall s", f"x {reference}"):
        table.add_column(column, justify="left" if column in ("case", "part") else "right")
    for r in rows:
        table.add_row(
            r["case"], r["part"], f"{r['cpu']:.4f}", f"{r['cpu_q25']:.4f}-{r['cpu_q75']:.4f}",
            f"{r['wall']:.4f}", "" if r["ratio"] is None else f"{r['ratio']:.2f}",
        )  # fmt: skip
    Console().print(table)
    if path is not None:
        machine = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{name: version(name) for name in ("torch", "botorch", "gpytorch", "bo-surrogates")},
        }
        path.write_text(json.dumps({"title": title, "machine": machine, "rows": rows}, indent=1))
