"""What is added to the diagonal of a covariance matrix that is singular to rounding.

The policy is that of linear_operator, with BoTorch's settings: where the Cholesky factorization of
a matrix fails, it is tried again with 1e-8 on the diagonal (1e-6 in float32), then ten times as
much, up to 1e-3 (0.1). It covers every factorization, in fits, posteriors and samplers. Matrices
of noisy outcomes have at least 1e-4 on their diagonal, so that it is seldom used; here is the
record of when it was.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from linear_operator.utils.warnings import NumericalWarning

_ADDED = re.compile(r"added jitter of ([0-9.eE+-]+)")


@dataclass
class Jitter:
    """Attributes: largest: what was added at most, relative to a variance of one; 0 for nothing."""

    largest: float = 0.0


@contextmanager
def recorded_jitter() -> Iterator[Jitter]:
    """Record the jitter of all factorizations inside; warnings are silenced."""
    jitter = Jitter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield jitter
    for warning in caught:
        if issubclass(warning.category, NumericalWarning):
            found = _ADDED.search(str(warning.message))
            if found:
                jitter.largest = max(jitter.largest, float(found[1]))
