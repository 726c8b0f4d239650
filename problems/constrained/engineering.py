"""Three classical designs of machine parts, through BoTorch's formulas.

Sources: pressure vessel, Kannan and Kramer 1994, J. Mech. Des. 116; string (spring), Belegundu 1982
and Arora 1989; both in Coello Coello 2002, Adv. Eng. Inform. 16. Speed reducer, Golinski 1970, J.
Mechanisms 5; in Lemonge et al. 2010.
"""

from __future__ import annotations

from collections.abc import Sequence

from botorch.test_functions import synthetic as botorch_functions

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Int, Ordered, Space
from problems.base import Optimum
from problems.botorch_adapter import BoTorchProblem

SIXTEENTHS = tuple(k / 16 for k in range(1, 161))  # plates are sold in sixteenths of an inch


class PressureVessel(BoTorchProblem):
    """Pressure vessel: cost of material, forming and welding of a cylinder with two half-spheres.

    Shell thickness x1 and head thickness x2 are multiples of 1/16 in (ordered parameters), inner
    radius x3 and length x4 are continuous (in). Minimize (in dollars)

        0.6224 x1 x3 x4 + 1.7781 x2 x3^2 + 3.1661 x1^2 x4 + 19.84 x1^2 x3

    subject to x1 >= 0.0193 x3, x2 >= 0.00954 x3, pi x3^2 x4 + 4/3 pi x3^3 >= 1296000 in^3 and
    x4 <= 240. Keywords as for `Problem`.

    For given thicknesses the cost rises with x3 and x4, so at the optimum the volume is exactly
    what is asked for and the radius as large as the shell allows, or the length at its bound.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            botorch_functions.PressureVessel(),
            Space(
                [
                    Ordered("shell_thickness", SIXTEENTHS, unit="in"),
                    Ordered("head_thickness", SIXTEENTHS, unit="in"),
                    Float("radius", 10.0, 50.0, unit="in"),
                    Float("length", 150.0, 200.0, unit="in"),
                ]
            ),
            [Objective("cost", unit="$")],
            slacks=("shell_slack", "head_slack", "volume_slack", "length_slack"),
            config=config,
            optimum=Optimum(
                6059.714335048436,
                ((12.0, 6.0, 42.0984455958549, 176.6365958424394),),
                "enumeration of the thicknesses, the rest in closed form",
            ),
            noise_std=noise_std,
            negate=negate,
        )


class TensionCompressionString(BoTorchProblem):
    """Coil spring: the lightest that bears a load.

    Wire diameter d and mean coil diameter D (in) and number of active coils N (real-valued here).
    Minimize d^2 D (N + 2) subject to bounds on deflection, shear stress, surge frequency and outer
    diameter, each as a slack that is not negative where it holds. Keywords as for `Problem`.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            botorch_functions.TensionCompressionString(),
            Space(
                [
                    Float("wire_diameter", 0.01, 1.0, unit="in"),
                    Float("coil_diameter", 0.01, 1.0, unit="in"),
                    Float("coils", 0.01, 20.0),
                ]
            ),
            [Objective("weight")],
            slacks=("deflection_slack", "shear_slack", "surge_slack", "diameter_slack"),
            config=config,
            optimum=Optimum(
                0.012665232788319413,
                ((0.05168906107382673, 0.35671773958444675, 11.288965764217773),),
                "many starts of sequential quadratic programming",
                proven=False,
            ),
            noise_std=noise_std,
            negate=negate,
        )


class SpeedReducer(BoTorchProblem):
    """Gear box: the lightest speed reducer that survives.

    Face width, module of the teeth and their number (an integer), lengths of the two shafts between
    bearings, and their diameters (cm). Eleven constraints (bending and contact stress of the teeth,
    deflections and stresses of the shafts, geometry), each as a slack. Keywords as for `Problem`.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            botorch_functions.SpeedReducer(),
            Space(
                [
                    Float("face_width", 2.6, 3.6, unit="cm"),
                    Float("module", 0.7, 0.8, unit="cm"),
                    Int("teeth", 17, 28),
                    Float("length_1", 7.3, 8.3, unit="cm"),
                    Float("length_2", 7.8, 8.3, unit="cm"),
                    Float("diameter_1", 2.9, 3.9, unit="cm"),
                    Float("diameter_2", 5.0, 5.5, unit="cm"),
                ]
            ),
            [Objective("weight")],
            slacks=(
                "bending_slack", "contact_slack", "deflection_1_slack", "deflection_2_slack",
                "stress_1_slack", "stress_2_slack", "space_slack", "narrow_slack", "wide_slack",
                "shaft_1_slack", "shaft_2_slack",
            ),
            config=config,
            optimum=Optimum(
                2996.3481649685295,
                ((3.5, 0.7, 17.0, 7.3, 7.8, 3.350214666096447, 5.286683229757916),),
                "many starts of sequential quadratic programming for each number of teeth",
                proven=False,
            ),
            noise_std=noise_std,
            negate=negate,
        )  # fmt: skip
