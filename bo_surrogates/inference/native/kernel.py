"""The compiled kernel's functions, on tensors."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_double, c_int, c_int64, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.native.library import library

if TYPE_CHECKING:
    from bo_surrogates.networks import BatchedMLP  # which evaluates its networks by this module

ACTIVATION_NUMBERS = {"tanh": 0, "relu": 1, "silu": 2, "sine": 3}
SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
KNOWN, LOG_NORMAL, HALF_CAUCHY = 0, 1, 2
ARGUMENTS: dict[str, list[Any]] = {
    "densities": [c_int64, c_void_p, c_void_p, c_void_p, c_int64],
    "trajectories": [c_int64, *[c_void_p] * 5, c_double, c_int64, c_int64],
    "adam": [c_int64, c_void_p, c_void_p, c_int64, c_double, c_void_p, c_void_p, c_int64],
    "values": [c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_void_p, c_int64],
}


class Problem(Structure):
    """The mirror of `source/problem.hpp`."""

    _fields_ = (
        *[(name, c_int64) for name in (
            "inputs", "outputs", "width", "depth", "activation", "points", "collapsed", "noise",
            "target_stride", "precision_stride",
        )],
        ("noise_mean", c_double), ("noise_std", c_double),
        *[(name, c_void_p) for name in (
            "X", "targets", "precision", "prior_precision", "output_scales",
        )],
    )  # fmt: skip


class Noise(NamedTuple):
    """How the noise enters.

    Attributes:
        precision: `n x m` or `K x n x m`, 1 / v; None where log variances are parameters.
        prior: `LOG_NORMAL` or `HALF_CAUCHY`, their prior, if they are.
        mean: Its mean.
        std: Its standard deviation; without meaning for the latter.
    """

    precision: Tensor | None
    prior: int = KNOWN
    mean: float = 0.0
    std: float = 1.0


class CompiledPosterior:
    """The log posterior of `networks/posterior.py`, compiled. On the CPU.

    Args:
        code: The library.
        network: Shape of the networks.
        X: `n x d` inputs, float32 or float64, which all other tensors follow.
        targets: `n x m` or `K x n x m`.
        noise: Known, or its prior.
        prior_precision: Of each sampled weight.
        output_scales: `m x (width + 1)` prior standard deviations of the output layer, float64,
            if it is integrated out.
    """

    def __init__(
        self,
        code: ctypes.CDLL,
        network: BatchedMLP,
        X: Tensor,
        targets: Tensor,
        noise: Noise,
        prior_precision: Tensor,
        output_scales: Tensor | None,
    ) -> None:
        self._dtype, self._device = X.dtype, X.device
        n, m = len(X), network.outputs
        self._kept = {  # whatever the structure points to
            "X": X.contiguous(),
            "targets": targets.contiguous(),
            "precision": None if noise.precision is None else noise.precision.contiguous(),
            "prior_precision": prior_precision.contiguous(),
            "output_scales": None if output_scales is None else output_scales.contiguous(),
        }
        self._networks = {
            len(t) for t in (self._kept["targets"], self._kept["precision"])
            if t is not None and t.ndim == 3
        }  # fmt: skip
        strides = [0 if t is None or t.ndim == 2 else n * m for t in (targets, noise.precision)]
        self._problem = Problem(
            network.inputs, m, network.width, network.depth,
            ACTIVATION_NUMBERS[network.activation], n, output_scales is not None, noise.prior,
            *strides, noise.mean, noise.std, *[_pointer(t) for t in self._kept.values()],
        )  # fmt: skip
        self._densities, self._trajectories, self._adam = (
            _function(code, name, X.dtype) for name in ("densities", "trajectories", "adam")
        )

    @classmethod
    def make(cls, *arguments: Any) -> CompiledPosterior | None:
        """One, where the arguments and this machine allow; None otherwise."""
        X = arguments[1]
        if X.device.type != "cpu" or X.dtype not in SUFFIX:
            return None
        code = library()
        return None if code is None else cls(code, *arguments)

    def accepts(self, parameters: Tensor) -> bool:
        """Whether parameters are of the type and number of networks that this is about."""
        return (
            parameters.dtype == self._dtype
            and parameters.device == self._device
            and self._networks <= {len(parameters)}
        )

    def densities(self, parameters: Tensor, threads: int) -> tuple[Tensor, Tensor]:
        """Log densities `K`, float64, and gradients `K x P` at `K x P` parameters."""
        parameters = parameters.detach().contiguous()
        density = torch.empty(len(parameters), dtype=torch.float64)
        gradient = torch.empty_like(parameters)
        _check(
            self._densities(
                byref(self._problem), len(parameters), parameters.data_ptr(), density.data_ptr(),
                gradient.data_ptr(), threads,
            )
        )  # fmt: skip
        return density, gradient

    def trajectories(
        self,
        scale: Tensor,
        position: Tensor,
        velocity: Tensor,
        gradient: Tensor,
        step_size: float,
        steps: int,
        threads: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Leapfrog steps; see `inference.hmc.leapfrog`.

        Returns:
            Positions, velocities, gradients `K x P` and log densities `K`, float64, at the end.

        Raises:
            InputError: Positions of another type or number of networks than this was made for.
        """
        if not self.accepts(position):
            raise InputError(
                f"the leapfrog integrator was made for positions of type {self._dtype} of "
                f"{self._networks or 'any number of'} networks, got {position.dtype} of "
                f"{len(position)}"
            )
        scale = scale.to(position).contiguous()
        position, velocity, gradient = (
            t.clone(memory_format=torch.contiguous_format) for t in (position, velocity, gradient)
        )
        density = torch.empty(len(position), dtype=torch.float64)
        _check(
            self._trajectories(
                byref(self._problem), len(position), scale.data_ptr(), position.data_ptr(),
                velocity.data_ptr(), gradient.data_ptr(), density.data_ptr(), step_size, steps,
                threads,
            )
        )  # fmt: skip
        return position, velocity, gradient, density

    def adam(
        self, scale: Tensor, start: Tensor, steps: int, learning_rate: float, threads: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adam in the coordinates parameters / scale; see `inference.adam.minimize`.

        Returns:
            Last parameters `K x P`, and log densities `K` of the first and the last, float64.
        """
        scale = scale.to(start).contiguous()
        state = start.detach().clone(memory_format=torch.contiguous_format)
        first, last = torch.empty(2, len(start), dtype=torch.float64)
        _check(
            self._adam(
                byref(self._problem), len(state), scale.data_ptr(), state.data_ptr(), steps,
                learning_rate, first.data_ptr(), last.data_ptr(), threads,
            )
        )  # fmt: skip
        return state, first, last


def evaluate(
    network: BatchedMLP, theta: Tensor, X: Tensor, jacobian: bool, threads: int
) -> tuple[Tensor, Tensor | None]:
    """Values of K networks, and their derivatives in the inputs from the same pass.

    Args:
        network: Shape of the networks.
        theta: `K x P` parameters on the CPU, float32 or float64.
        X: `n x d` inputs of all networks or `K x n x d`, of theta's type.
        jacobian: Whether derivatives are wanted.
        threads: At most; results do not depend on it.

    Returns:
        `K x n x m`, and `K x n x m x d` or None.

    Raises:
        InputError: There is no compiled kernel.
    """
    code = library()
    if code is None:
        raise InputError("there is no compiled kernel on this machine; evaluate by torch")
    theta, X = theta.contiguous(), X.contiguous()
    (K, n, d), m = (len(theta), *X.shape[-2:]), network.outputs
    values = theta.new_empty(K, n, m)
    slopes = theta.new_empty(K, n, m, d) if jacobian else None
    _check(
        _function(code, "values", theta.dtype)(
            byref(_shape(network, n)), K, theta.data_ptr(), X.data_ptr(),
            n * d if X.ndim == 3 else 0, values.data_ptr(), _pointer(slopes), threads,
        )
    )  # fmt: skip
    return values, slopes


def _shape(network: BatchedMLP, n: int) -> Problem:
    """Networks and a number of points, without data."""
    return Problem(
        network.inputs, network.outputs, network.width, network.depth,
        ACTIVATION_NUMBERS[network.activation], n, noise=KNOWN,
    )  # fmt: skip


@cache
def _function(code: ctypes.CDLL, name: str, dtype: torch.dtype) -> Any:
    function = getattr(code, f"{name}_{SUFFIX[dtype]}")
    function.argtypes, function.restype = [POINTER(Problem), *ARGUMENTS[name]], c_int
    return function


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("not enough memory to evaluate the networks")
