"""What is optimized. `PROBLEMS` leads from a name to a problem:

from problems import PROBLEMS
problem = PROBLEMS["hartmann6"].make(noise_std=0.1)
"""

from problems.combinatorial import register as _register_combinatorial
from problems.constrained import register as _register_constrained
from problems.control import register as _register_control
from problems.documented import register as _register_documented
from problems.learning import register as _register_learning
from problems.physical import register as _register_physical
from problems.registry import PROBLEMS, ProblemEntry
from problems.synthetic import register as _register_synthetic

_register_synthetic(PROBLEMS)
_register_constrained(PROBLEMS)
_register_physical(PROBLEMS)
_register_control(PROBLEMS)
_register_combinatorial(PROBLEMS)
_register_learning(PROBLEMS)
_register_documented(PROBLEMS)

__all__ = ["PROBLEMS", "ProblemEntry"]
