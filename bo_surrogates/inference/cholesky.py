"""Cholesky factors of covariance matrices that may be singular to rounding: the one policy.

Where the factorization of A fails, it is tried again with

    A + j max(1, mean diag A) I,    j = 1e-8, 1e-7, ..., 1e-3    (1e-6, ..., 0.1 in float32),

and refused after that. j is GPyTorch's and the number of tries BoTorch's (settings of
linear_operator). Theirs is made for variances of about one, as those of standardized outcomes are;
larger ones need more, their rounding errors being larger. Smaller ones are differences of such, as
posterior covariances are, whose rounding errors are not smaller. Matrices of noisy outcomes have at
least 1e-4 on their diagonal, and seldom need any.

`recorded_jitter` tells what was added, here and by GPyTorch. Every fit is recorded: the largest j
is "jitter" in its diagnostics.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from linear_operator.settings import cholesky_jitter, cholesky_max_tries
from linear_operator.utils.errors import NanError, NotPSDError
from linear_operator.utils.warnings import NumericalWarning
from torch import Tensor

_ADDED = re.compile(r"added jitter of ([0-9.eE+-]+)")


@dataclass
class Jitter:
    """What was added to diagonals.

    Attributes:
        largest: The largest j of the module's docstring; 0 for none.
        factorizations: How many there were, GPyTorch's that needed nothing left out.
    """

    largest: float = 0.0
    factorizations: int = 0


_records: ContextVar[tuple[Jitter, ...]] = ContextVar("records", default=())


def psd_safe_cholesky(A: Tensor) -> Tensor:
    """Lower Cholesky factor of positive semi-definite matrices, with jitter where it takes some.

    Differentiable; what is added is a constant.

    Args:
        A: `batch_shape x n x n`.

    Returns:
        `batch_shape x n x n` lower triangular.

    Raises:
        NanError: A has an element that is not a number.
        NotPSDError: The largest jitter was too little.
    """
    L, failed = torch.linalg.cholesky_ex(A)
    added, largest = 0.0, 0.0
    if failed.any():
        if not torch.isfinite(A).all():
            raise NanError(
                f"a covariance matrix of shape {tuple(A.shape)} has "
                f"{int((~torch.isfinite(A)).sum())} elements that are not finite"
            )
        first = cholesky_jitter.value(A.dtype)
        scale = A.detach().diagonal(dim1=-2, dim2=-1).mean(dim=-1).clamp_min(1.0)
        total = A.clone()
        for i in range(cholesky_max_tries.value()):
            largest = first * 10.0**i
            more = torch.where(failed > 0, (largest - added) * scale, 0.0).unsqueeze(-1)
            total.diagonal(dim1=-2, dim2=-1).add_(more)
            added = largest
            L, failed = torch.linalg.cholesky_ex(total)
            if not failed.any():
                break
        else:
            raise NotPSDError(
                f"a covariance matrix of shape {tuple(A.shape)} is not positive definite, nor "
                f"with jitter of {largest:.0e} on its diagonal"
            )
    for record in _records.get():
        record.largest = max(record.largest, largest)
        record.factorizations += 1
    return L


@contextmanager
def recorded_jitter() -> Iterator[Jitter]:
    """Record the jitter of all factorizations inside; GPyTorch's warnings of it are silenced."""
    jitter = Jitter()
    token = _records.set((*_records.get(), jitter))
    with warnings.catch_warnings():
        warnings.simplefilter("always", NumericalWarning)
        show = warnings.showwarning

        def watch(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            found = _ADDED.search(str(message)) if issubclass(category, NumericalWarning) else None
            if found is None:
                show(message, category, *place, **more)
            else:
                jitter.largest = max(jitter.largest, float(found[1]))

        warnings.showwarning = watch
        try:
            yield jitter
        finally:
            _records.reset(token)
