"""Closed-form problems whose optimum is known, and draws of random functions."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry

STUDY = "Li, Rudner and Wilson 2024, ICLR, arXiv 2305.20028"


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the synthetic problems."""
    for name, target, summary, source, tags in (
        (
            "branin",
            "branin:Branin",
            "two inputs, three equal global minima",
            "Dixon and Szego 1978, Towards Global Optimisation 2",
            ("continuous",),
        ),
        (
            "hartmann6",
            "hartmann:Hartmann6",
            "six inputs, six local minima, one of them global",
            "Dixon and Szego 1978, Towards Global Optimisation 2",
            ("continuous",),
        ),
        (
            "augmented_branin",
            "augmented:AugmentedBranin",
            "branin with a fidelity: cheap evaluations are of a distorted function",
            "Wu et al. 2019, UAI, arXiv 1903.04703; BoTorch",
            ("continuous", "fidelity"),
        ),
        (
            "augmented_hartmann6",
            "augmented:AugmentedHartmann6",
            "hartmann6 with a fidelity: cheap evaluations are of a distorted function",
            "Wu et al. 2019, UAI, arXiv 1903.04703; BoTorch",
            ("continuous", "fidelity"),
        ),
        (
            "ackley",
            "shifted:Ackley",
            "any number of inputs, many local minima around one funnel, off the centre",
            "Ackley 1987, A Connectionist Machine for Genetic Hillclimbing",
            ("continuous",),
        ),
        (
            "griewank",
            "shifted:Griewank",
            "any number of inputs, a bowl with ripples, off the centre",
            "Griewank 1981, J. Optim. Theory Appl. 34",
            ("continuous",),
        ),
        (
            "levy",
            "shifted:Levy",
            "any number of inputs, waves on a bowl, off the centre",
            "Levy and Montalvo 1985, SIAM J. Sci. Stat. Comput. 6",
            ("continuous",),
        ),
        (
            "rastrigin",
            "shifted:Rastrigin",
            "any number of inputs, a grid of local minima, off the centre",
            "Rastrigin 1974",
            ("continuous",),
        ),
        (
            "rosenbrock",
            "rosenbrock:Rosenbrock",
            "any number of inputs, a long, curved, flat valley",
            "Rosenbrock 1960, Comput. J. 3",
            ("continuous",),
        ),
        (
            "branin_currin",
            "branin_currin:BraninCurrin",
            "two inputs, two objectives in conflict",
            "Currin et al. 1991, JASA 86; Belakaria et al. 2019, NeurIPS",
            ("continuous", "multi-objective"),
        ),
        (
            "dtlz1",
            "dtlz:DTLZ1",
            "any number of objectives; a linear front behind many local ones",
            "Deb et al. 2005",
            ("continuous", "multi-objective"),
        ),
        (
            "dtlz5",
            "dtlz:DTLZ5",
            "any number of objectives; a front that is a curve",
            "Deb et al. 2005",
            ("continuous", "multi-objective"),
        ),
        (
            "poly_draw",
            "poly_draw:PolyDraw",
            "200 inputs, a random sum of products of four, exact optimum",
            STUDY,
            ("continuous", "high-dimensional"),
        ),
        (
            "bnn_draw",
            "bnn_draw:BNNDraw",
            "400 inputs, a draw from a Bayesian neural network's prior",
            STUDY,
            ("continuous", "high-dimensional"),
        ),
        (
            "xiong",
            "nonstationary:Xiong",
            "one input, waves that die out: no single length scale",
            "Xiong et al. 2007, Int. J. Numer. Meth. Eng. 71",
            ("continuous", "non-stationary"),
        ),
        (
            "michalewicz",
            "nonstationary:Michalewicz",
            "any number of inputs, flat but for narrow valleys",
            "Michalewicz 1992, Genetic Algorithms + Data Structures = Evolution Programs",
            ("continuous", "non-stationary"),
        ),
        (
            "cliff",
            "nonstationary:Cliff",
            "any number of inputs, the optimum next to an oblique step",
            "bo-surrogates",
            ("continuous", "non-stationary"),
        ),
        (
            "heteroskedastic",
            "noise:Heteroskedastic",
            "a known function, Gaussian noise that grows along the first input",
            "bo-surrogates",
            ("continuous", "noisy"),
        ),
        (
            "heavy_tailed",
            "noise:HeavyTailed",
            "a known function, Student-t noise and outliers",
            "bo-surrogates",
            ("continuous", "noisy"),
        ),
        (
            "botorch",
            "botorch_function:BoTorchFunction",
            "any other test function of BoTorch, by its name",
            "Balandat et al. 2020, arXiv 1910.06403",
            ("continuous",),
        ),
        (
            "bbob",
            "bbob:BBOB",
            "the 24 functions of BBOB, any instance and dimension",
            "Hansen et al. 2009, INRIA RR-6829; de Nobel et al. 2024, Evol. Comput. 32",
            ("continuous", "extra"),
        ),
    ):
        registry.register(
            ProblemEntry(
                name=name,
                target=f"problems.synthetic.{target}",
                summary=summary,
                source=source,
                cost="< 1 s",
                tags=("synthetic", *tags),
            )
        )
