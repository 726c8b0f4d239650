"""The example's simulated reactor obeys its kinetics."""

import itertools
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp

PROGRAM = Path(__file__).parents[2] / "examples" / "reactor.py"


SIMULATE = runpy.run_path(str(PROGRAM))["simulate"]


def test_the_program_reads_a_point_and_prints_what_it_simulates():
    point = {"temperature": 60, "residence_time": 5, "acid": 0.5, "base": 1, "solvent": "water"}
    done = subprocess.run(
        [sys.executable, PROGRAM],
        input=json.dumps(point), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == SIMULATE(**point)


@pytest.mark.parametrize(
    ("solvent", "wanted", "unwanted"),
    [("water", 0.10, 0.012), ("ethanol", 0.25, 0.030), ("dmso", 0.60, 0.110)],
)
def test_yield_and_impurity_solve_the_rate_equations(solvent, wanted, unwanted):
    # Corners of the campaign's space, against an adaptive implicit integrator in extents.
    feeds = ((0.1, 1.0), (1.0, 0.1))
    for temperature, time, (acid, base) in itertools.product((20, 120), (0.5, 60), feeds):
        inverse = 1 / (temperature + 273.15) - 1 / 343.15
        k1 = wanted * np.exp(-55e3 / 8.314 * inverse)
        k2 = unwanted * np.exp(-85e3 / 8.314 * inverse)

        def rates(_, extents, k1=k1, k2=k2, acid=acid, base=base):
            free = base - extents.sum()
            return [k1 * (acid - extents[0]) * free, k2 * (extents[0] - extents[1]) * free]

        reached = solve_ivp(rates, (0, time), [0, 0], "Radau", rtol=1e-10, atol=1e-13).y[:, -1]
        got = SIMULATE(
            temperature=temperature, residence_time=time, acid=acid, base=base, solvent=solvent
        )
        assert got["yield"] == pytest.approx((reached[0] - reached[1]) / acid, abs=1e-5)
        assert got["impurity"] == pytest.approx(reached[1] / acid, abs=1e-5)
