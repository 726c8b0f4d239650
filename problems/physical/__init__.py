"""Simulators of physical and technical systems."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry

STUDY = "Li, Rudner and Wilson 2024, ICLR, arXiv 2305.20028"


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the physical problems."""
    registry.register(
        ProblemEntry(
            name="brusselator",
            target="problems.physical.brusselator:Brusselator",
            summary="four constants of a reaction with diffusion: the evenness of its pattern",
            source="Maddox et al. 2021, NeurIPS, arXiv 2106.12997",
            cost="seconds",  # 0.05 s in most of the box, some seconds where the reaction spikes
            tags=("physical", "continuous", "noisy"),
        )
    )
    for name, target, summary, source, tags in (
        (
            "interferometer",
            "interferometer:Interferometer",
            "four screws of a Mach-Zehnder interferometer: a needle on a plateau",
            "Sorokin et al. 2020, NeurIPS, arXiv 2006.02252",
            ("continuous", "noisy"),
        ),
        (
            "oil_sorbent",
            "oil_sorbent:OilSorbent",
            "seven settings of electrospinning, three properties of the sorbent",
            f"Wang et al. 2020, J. Mater. Chem. A 8; {STUDY}",
            ("mixed", "multi-objective"),
        ),
        (
            "cell_coverage",
            "cell_coverage:CellCoverage",
            "power and downtilt of fifteen antennas: weak coverage against interference",
            "Dreifuerst et al. 2021, ICASSP, arXiv 2010.13710",
            ("mixed", "multi-objective"),
        ),
        (
            "penicillin",
            "penicillin:Penicillin",
            "seven settings of a fermenter: penicillin, carbon dioxide and time",
            "Liang and Lai 2021, Winter Simulation Conference, arXiv 2109.02762",
            ("continuous", "multi-objective"),
        ),
        (
            "vehicle_safety",
            "vehicle_safety:VehicleSafety",
            "five thicknesses of a car's front: mass, acceleration and intrusion",
            "Liao et al. 2008, Struct. Multidisc. Optim. 35; Tanabe and Ishibuchi 2020",
            ("continuous", "multi-objective"),
        ),
    ):
        registry.register(
            ProblemEntry(
                name=name,
                target=f"problems.physical.{target}",
                summary=summary,
                source=source,
                cost="seconds" if name == "penicillin" else "< 1 s",
                tags=("physical", *tags),
            )
        )
