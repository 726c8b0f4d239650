"""Welded beam: the cheapest beam, and weld that holds it, for a load at its free end.

A beam of length L = 14 in, thickness t (`height`, in) and width b (`width`, in) carries P = 6000
lb; it is welded along l (`weld_length`, in) with welds of size h (`weld_size`, in). Minimize the
cost

    f = 1.10471 h^2 l + 0.04811 t b (14 + l)

subject to, with E = 30e6 psi and G = 12e6 psi:

    tau <= 13600 psi,  the weld's shear stress, tau^2 = p^2 + p q l / R + q^2 with
                       p = P / (sqrt(2) h l), q = P (L + l/2) R / J,
                       R = sqrt(l^2 + (h + t)^2) / 2, J = 2 sqrt(2) h l (l^2 / 12 + (h + t)^2 / 4);
    6 P L / (b t^2) <= 30000 psi,  the beam's bending stress;
    4 P L^3 / (E t^3 b) <= 0.25 in,  its deflection;
    4.013 E t b^3 / (6 L^2) (1 - t / (2 L) sqrt(E / (4 G))) >= P,  its buckling load;
    h <= b,  and  0.10471 h^2 + 0.04811 t b (14 + l) <= 5.

The best value known is 1.7248523. BoTorch's `WeldedBeamSO` multiplies the buckling load by six
where it should be divided by six, which makes that constraint void (its minimum is 1.587), hence
the formulas here.

Source: Ragsdell and Phillips 1976, J. Eng. Ind. 98; in this form Coello Coello 2002, Adv. Eng.
Inform. 16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem

LOAD, LENGTH = 6000.0, 14.0  # lb, in
E, G = 30e6, 12e6  # psi
BEST_VALUE = 1.724852308596847
BEST_POINT = (0.2057296397860657, 3.4704886656280065, 9.036623910357592, 0.20572963978601497)


class WeldedBeam(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            Space(
                [
                    Float("weld_size", 0.125, 10.0, unit="in"),
                    Float("weld_length", 0.1, 10.0, unit="in"),
                    Float("height", 0.1, 10.0, unit="in"),
                    Float("width", 0.1, 10.0, unit="in"),
                ]
            ),
            [Objective("cost")],
            constraints=[
                OutcomeConstraint("shear_stress", "<=", 13600.0),
                OutcomeConstraint("bending_stress", "<=", 30000.0),
                OutcomeConstraint("deflection", "<=", 0.25),
                OutcomeConstraint("buckling_load", ">=", LOAD),
                OutcomeConstraint("weld_excess", "<=", 0.0),
                OutcomeConstraint("material_cost", "<=", 5.0),
            ],
            config=config,
            optimum=Optimum(
                BEST_VALUE,
                (BEST_POINT,),
                "many starts of sequential quadratic programming",
                proven=False,
            ),
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        h, weld, t, b = X.unbind(dim=-1)
        cost = 1.10471 * h.square() * weld + 0.04811 * t * b * (14.0 + weld)
        arm = (weld.square() + (h + t).square()).sqrt() / 2
        inertia = 2 * math.sqrt(2) * h * weld * (weld.square() / 12 + (h + t).square() / 4)
        p = LOAD / (math.sqrt(2) * h * weld)
        q = LOAD * (LENGTH + weld / 2) * arm / inertia
        shear = (p.square() + p * q * weld / arm + q.square()).sqrt()
        bending = 6 * LOAD * LENGTH / (b * t.square())
        deflection = 4 * LOAD * LENGTH**3 / (E * t.pow(3) * b)
        slenderness = 1 - t / (2 * LENGTH) * math.sqrt(E / (4 * G))
        buckling = 4.013 * E * t * b.pow(3) / (6 * LENGTH**2) * slenderness
        material = 0.10471 * h.square() + 0.04811 * t * b * (14.0 + weld)
        return torch.stack([cost, shear, bending, deflection, buckling, h - b, material], dim=-1)
