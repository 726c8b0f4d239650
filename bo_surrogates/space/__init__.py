"""What may be varied: named parameters and the space they span.

Three sets of coordinates meet here, and only here:

* **values**, as the user writes them: `{"lr": 0.003, "blocks": 2, "mode": "tile"}`;
* **problem coordinates** `X`, the tensor face of a `botorch` test problem: floats and ints as
  they are, ordered and choice parameters as the index of their value;
* **model coordinates** `Z`, in which a surrogate sees a point and an acquisition function is
  optimized: problem coordinates, with log10 for logarithmic parameters.

Fixed parameters are values, but no coordinates. Where a conditional parameter is inactive it is no
value either, and its coordinate is its imputed value (`conditions.py`).
"""

from bo_surrogates.space.branches import Branch
from bo_surrogates.space.constraints import LinearConstraint, parse_constraints
from bo_surrogates.space.parameters import (
    KINDS,
    Choice,
    Fixed,
    Float,
    Int,
    Ordered,
    Parameter,
    Value,
    Values,
    Varied,
)
from bo_surrogates.space.space import Space

__all__ = [
    "KINDS",
    "Branch",
    "Choice",
    "Fixed",
    "Float",
    "Int",
    "LinearConstraint",
    "Ordered",
    "Parameter",
    "Space",
    "Value",
    "Values",
    "Varied",
    "parse_constraints",
]
