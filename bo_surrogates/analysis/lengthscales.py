"""Lengthscales of a fitted surrogate, where its kernel has one for each input.

The distance over which an input changes the function noticeably: short where the input matters,
several times the range where it does not. They are in shares of an input's range (of the range of
the logarithm, for a logarithmic parameter), so that inputs compare.
"""

from __future__ import annotations

from typing import Any

import torch
from gpytorch.kernels import Kernel, MaternKernel, RBFKernel, ScaleKernel
from torch import Tensor

from bo_surrogates.kernels.infinite_width import NNGPKernel
from bo_surrogates.kernels.mixed import MixedKernel
from bo_surrogates.surrogates.base import Surrogate
from bo_surrogates.surrogates.gp import one_hot_columns
from bo_surrogates.surrogates.random_features import RandomFeatureSurrogate


def lengthscales(model: Surrogate) -> Tensor | None:
    """One lengthscale for each of the `d` inputs, or None where the surrogate has none.

    None also for the additive kernel: there an input matters by its component's variance. Of a
    categorical input coded in several columns, the shortest; of a mixture of Gaussian
    processes, the median. For kernels of infinitely wide networks, and for random features, the
    distance over which the scaled input changes by 1.

    Args:
        model: Fitted, with one outcome.
    """
    columns = _columns(model)
    if columns is None:
        return None
    transforms = (getattr(part, "input_transform", None) for part in _parts(model))
    groups = one_hot_columns(next((t for t in transforms if t is not None), None))
    coded = {column for group in groups for column in group}
    owners = sorted(groups + [[c] for c in range(len(columns)) if c not in coded])
    return torch.stack([columns[owner].min() for owner in owners])


def _columns(model: Any) -> Tensor | None:
    """A lengthscale for each column that the kernel sees."""
    if isinstance(model, RandomFeatureSurrogate):
        log_scales = model.log_scales.detach()
        shared = bool((log_scales == log_scales[0]).all())  # by configuration
        return None if shared else (-log_scales).exp() / model.map.spread
    kernels = (getattr(part, "covar_module", None) for part in _parts(model))
    kernel = next((k for k in kernels if isinstance(k, Kernel)), None)
    found = None if kernel is None else _of_kernel(kernel)
    return None if found is None else found.detach()


def _parts(model: Any) -> tuple[Any, ...]:
    """The surrogate, and the Gaussian process inside it where there is one."""
    return (model, *(getattr(model, name, None) for name in ("gp", "model", "members")))


def _of_kernel(kernel: Kernel) -> Tensor | None:
    if isinstance(kernel, ScaleKernel):
        return _of_kernel(kernel.base_kernel)
    if isinstance(kernel, MixedKernel):
        categorical = kernel.categories.lengthscale.flatten()
        if kernel.continuous is None:
            return categorical
        parts = torch.cat([categorical, kernel.continuous.lengthscale.flatten()])
        order = torch.cat([kernel.categorical_columns, kernel.continuous_columns])
        return parts[order.argsort()]
    if isinstance(kernel, NNGPKernel):  # z = a (2 x - 1)
        scale = kernel.input_scale.flatten()
        return 0.5 / scale if len(scale) == kernel.ard_num_dims else None
    if isinstance(kernel, RBFKernel | MaternKernel) and kernel.ard_num_dims:
        values: Tensor = kernel.lengthscale
        return values.reshape(-1, kernel.ard_num_dims).median(dim=0).values
    return None
