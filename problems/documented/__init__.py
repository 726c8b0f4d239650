"""Documented models: real layers, a training routine and a tuning problem, one module a paper."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the documented models."""
    registry.register(
        ProblemEntry(
            name="pokebnn",
            target="problems.documented.pokebnn_tuning:PokeBNNTuning",
            summary="binary network on 8 x 8 digits: test error against arithmetic effort (ACE)",
            source="Zhang et al. 2022, PokeBNN, CVPR, arXiv 2112.00133",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="bibench",
            target="problems.documented.bibench_tuning:BiBenchTuning",
            summary="binary networks, the operator a parameter with parameters of its own",
            source="Qin et al. 2023, BiBench, ICML, arXiv 2301.11233",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="biper",
            target="problems.documented.biper_tuning:BiPerTuning",
            summary="binary networks by a periodic function, trained in two stages",
            source="Vargas et al. 2024, BiPer, CVPR, arXiv 2404.01278",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="mst",
            target="problems.documented.mst_tuning:MSTTuning",
            summary="binary networks along minimum spanning trees: error, XNORs, depth",
            source="Vo et al. 2023, MST-compression, ICCV, arXiv 2308.13735",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "constrained", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="phnn",
            target="problems.documented.phnn_tuning:PHNNTuning",
            summary="hypercomplex network from 300 digits: test error against stored bits",
            source="Grassucci, Zhang and Comminiello 2022, PHNNs, IEEE TNNLS, arXiv 2110.04176",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="fbnet_architecture",
            target="problems.documented.fbnet_tuning:FBNetArchitectureTuning",
            summary="blocks of a small network, 400 architectures: error against latency",
            source="Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="fbnet_table",
            target="problems.documented.fbnet_table:FBNetTable",
            summary="the 400 architectures trained beforehand, looked up: optimum and front known",
            source="Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443; trained by this project",
            cost="< 1 s",
            tags=("documented", "compression", "mixed", "multi-objective"),
        )
    )
    registry.register(
        ProblemEntry(
            name="fbnet_search",
            target="problems.documented.fbnet_tuning:FBNetSearchTuning",
            summary="architecture search by gradients, then training: error against latency",
            source="Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="nupes",
            target="problems.documented.nupes_tuning:NupesTuning",
            summary="quantization after training, bits of each layer: test error against bits",
            source="Yvinec, Dapogny and Bailly 2023, NUPES, arXiv 2308.05600",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="tinynet",
            target="problems.documented.tinynet_tuning:TinyNetTuning",
            summary="small network: its resolution, depth and width, error against MACs",
            source="Han et al. 2020, Model Rubik's Cube, NeurIPS, arXiv 2010.14819",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="wide_deep",
            target="problems.documented.wide_deep_tuning:WideDeepTuning",
            summary="infinitely wide, deep network on two classes: depth, activation, test error",
            source="Radhakrishnan, Belkin and Uhler 2023, PNAS, arXiv 2204.14126",
            cost="seconds",
            tags=("documented", "mixed", "noisy"),
        )
    )
