"""A simulated tubular reactor: A + B -> C (wanted), then C + B -> D (impurity).

Reads the parameters as JSON from standard input, prints yield and impurity as JSON. Second-order
kinetics with Arrhenius rates, integrated along the tube with the classical Runge-Kutta method.
"""

import json
import math
import sys

GAS_CONSTANT = 8.314e-3  # kJ / (mol K)
REFERENCE = 343.15  # K, at which the rates below are given
STEPS = 4000
# Solvent: rate of the wanted and of the unwanted reaction at the reference, L / (mol min).
RATES = {"water": (0.10, 0.012), "ethanol": (0.25, 0.030), "dmso": (0.60, 0.110)}
ENERGIES = (55.0, 85.0)  # activation energies, kJ / mol


def simulate(temperature, residence_time, acid, base, solvent):
    """Yield on A and impurity, both as fractions of the A fed."""
    kelvin = temperature + 273.15
    wanted, unwanted = (
        rate * math.exp(-energy / GAS_CONSTANT * (1 / kelvin - 1 / REFERENCE))
        for rate, energy in zip(RATES[solvent], ENERGIES, strict=True)
    )

    def slope(state):
        a, b, c, _ = state
        first, second = wanted * a * b, unwanted * c * b
        return (-first, -first - second, first - second, second)

    state, h = (acid, base, 0.0, 0.0), residence_time / STEPS
    for _ in range(STEPS):
        k1 = slope(state)
        k2 = slope([s + h / 2 * k for s, k in zip(state, k1, strict=True)])
        k3 = slope([s + h / 2 * k for s, k in zip(state, k2, strict=True)])
        k4 = slope([s + h * k for s, k in zip(state, k3, strict=True)])
        state = [
            s + h / 6 * (p + 2 * q + 2 * r + t)
            for s, p, q, r, t in zip(state, k1, k2, k3, k4, strict=True)
        ]
    return {"yield": state[2] / acid, "impurity": state[3] / acid}


if __name__ == "__main__":
    print(json.dumps(simulate(**json.load(sys.stdin))))
