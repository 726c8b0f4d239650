"""Problems whose best point lies against outcome constraints."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry

COELLO = "Coello Coello 2002, Adv. Eng. Inform. 16"


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the constrained problems."""
    for name, target, summary, source, tags in (
        (
            "gramacy",
            "gramacy:Gramacy",
            "two inputs, linear objective, a wavy constraint with separate valleys",
            "Gramacy et al. 2016, Technometrics 58",
            (),
        ),
        (
            "keane_bump",
            "keane_bump:KeaneBump",
            "any number of inputs, many ridges, the best point against a constraint",
            "Keane 1994; Mishra 2007",
            (),
        ),
        (
            "welded_beam",
            "welded_beam:WeldedBeam",
            "four dimensions of a beam and its weld: cost under stress, deflection and buckling",
            f"Ragsdell and Phillips 1976, J. Eng. Ind. 98; {COELLO}",
            ("engineering",),
        ),
        (
            "pressure_vessel",
            "engineering:PressureVessel",
            "a vessel's cost; plate thicknesses in sixteenths of an inch",
            f"Kannan and Kramer 1994, J. Mech. Des. 116; {COELLO}",
            ("engineering", "mixed"),
        ),
        (
            "tension_compression_string",
            "engineering:TensionCompressionString",
            "the lightest coil spring under deflection, stress and frequency constraints",
            f"Belegundu 1982; {COELLO}",
            ("engineering",),
        ),
        (
            "speed_reducer",
            "engineering:SpeedReducer",
            "the lightest gear box, eleven constraints, an integer number of teeth",
            "Golinski 1970, J. Mechanisms 5; Lemonge et al. 2010",
            ("engineering", "mixed"),
        ),
    ):
        kind = () if "mixed" in tags else ("continuous",)
        registry.register(
            ProblemEntry(
                name=name,
                target=f"problems.constrained.{target}",
                summary=summary,
                source=source,
                cost="< 1 s",
                tags=("constrained", *kind, *tags),
            )
        )
