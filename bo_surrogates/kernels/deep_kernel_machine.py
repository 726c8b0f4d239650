"""The kernel of a deep kernel machine: Gram matrices of the layers, learnt at inducing points.

Layer l has the Gram matrix G_l, and K(G) is a kernel that depends on its inputs through their Gram
matrix only. In the limit of a deep Gaussian process of infinite width that goes on learning
(Yang et al. 2023, arXiv 2108.13097), G_1, ..., G_L at P inducing points are parameters, held at
their prior by

    sum_l nu KL(N(0, G_l) || N(0, K(G_{l-1}))).

With K(G_{l-1}) = L L' and G_l = L M M' L', M lower triangular with a positive diagonal, the
divergence is (|M|^2 - P) / 2 - sum log diag M, and M = I is the prior: the kernel of an infinitely
wide network that does not learn. Elsewhere G_l follows from the prior's conditional: with
A_t = L^-1 K_it,

    G_ti = A_t' M M' L',    G_st = K_st + A_s' (M M' - I) A_t,

which leaves the divergence as it is. Hence k(x, x') = v K(G_L), the covariance of a Gaussian
process. All of it is computed in float64.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from botorch.sampling.pathwise.features.maps import FeatureMap
from gpytorch.kernels import Kernel
from gpytorch.priors import NormalPrior
from torch import Size, Tensor
from torch.nn import Parameter

from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.kernels.arc_cosine import arc_cosine_pair

GRAM_KERNELS = ("se", "normalized-se", "relu", "linear")
JITTER = 1e-6  # of K at the inducing points, relative to its mean diagonal
WIDTH = 512  # of the networks that stand in for the kernel where functions are drawn


class Grams(NamedTuple):
    """Inner products of features of two sets of points s and t, and of the inducing points i.

    Attributes:
        ii: `P x P`.
        si: `... x s x P`.
        ti: `... x t x P`.
        ss: `... x s x 1`, the diagonal.
        tt: `... x t x 1`, the diagonal.
        st: `... x s x t`.
    """

    ii: Tensor
    si: Tensor
    ti: Tensor
    ss: Tensor
    tt: Tensor
    st: Tensor


class DeepKernelMachineKernel(Kernel):
    """k of the module's docstring. G_0 = z z' / d + b, z = a (2x - 1), for inputs in [0, 1]^d.

    All elements of a batch share the Gram matrices; each has its own v.

    Args:
        map_name: "se", exp(-(G_ii + G_jj - 2 G_ij) / (2 s^2)) with s learnt in each layer;
            "normalized-se", the same of G_ij / sqrt(G_ii G_jj); "relu", the arc-cosine kernel that
            keeps variances; "linear", G itself.
        inducing: `P x d` inducing inputs.
        layers: L, the number of Gram matrices, >= 1.
        batch_shape: Of v.
        unit: Of the parameters of M: 1 / sqrt(nu m) makes the curvature of nu m times the
            divergence 1 in each, whatever nu and the number m of outcomes are.

    Raises:
        InputError: An unknown kernel.
    """

    has_lengthscale = False  # hence not stationary

    def __init__(
        self,
        map_name: str,
        inducing: Tensor,
        layers: int,
        batch_shape: Size | None = None,
        unit: float = 1.0,
    ) -> None:
        super().__init__(batch_shape=batch_shape)
        if map_name not in GRAM_KERNELS:
            raise InputError(
                f"unknown kernel {map_name!r}{did_you_mean(map_name, GRAM_KERNELS)}; choose one "
                f"of {list(GRAM_KERNELS)}"
            )
        P, d = inducing.shape
        self.map_name, self.layers, self.unit = map_name, layers, unit
        self.register_buffer("inducing", inducing.detach().clone())
        # The lower triangle of each M, its diagonal in the log domain: zeros are M = I.
        self.factors = Parameter(torch.zeros(layers, P * (P + 1) // 2))
        for name, shape, value in (
            ("log_input_scale", (1, d), 0.0),
            ("log_bias_variance", (1, 1), math.log(0.3)),
            ("log_lengthscale", (1, layers + 1), 0.0),
            ("log_output_variance", (*self.batch_shape, 1, 1), 0.0),
        ):
            self.register_parameter(name, Parameter(torch.full(shape, value)))
        self.register_prior("input_scale_prior", NormalPrior(0.5, 1.0), "log_input_scale")
        self.register_prior("bias_prior", NormalPrior(math.log(0.3), 1.0), "log_bias_variance")
        self.register_prior("lengthscale_prior", NormalPrior(0.0, 0.5), "log_lengthscale")
        self.register_prior("output_prior", NormalPrior(0.0, 1.0), "log_output_variance")

    def __getitem__(self, index: Any) -> DeepKernelMachineKernel:
        """The kernel of some elements of the batch; what they share is not indexed."""
        new = deepcopy(self)
        variance = self.log_output_variance.data[index]
        new.log_output_variance.data = variance
        new.batch_shape = variance.shape[:-2]
        return new

    # ---- the parts ---------------------------------------------------------------------------
    def roots(self) -> Tensor:
        """`L x P x P`: M of each layer."""
        P = len(self.inducing)
        rows, columns = torch.tril_indices(P, P, device=self.factors.device)
        M = torch.zeros(self.layers, P, P, dtype=torch.float64, device=self.factors.device)
        values = self.unit * self.factors.double()
        return M.index_put(
            (torch.arange(self.layers, device=M.device)[:, None], rows, columns),
            torch.where(rows == columns, values.exp(), values),
        )

    def divergence(self) -> Tensor:
        """sum_l KL(N(0, G_l) || N(0, K(G_{l-1})))."""
        M = self.roots()
        log_diagonal = M.diagonal(dim1=-2, dim2=-1).log().sum()
        return 0.5 * (M.square().sum() - self.layers * M.shape[-1]) - log_diagonal

    def of_gram(self, layer: int, G: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """K of Gram matrix entries `... x s x t`, with diagonals `... x s x 1`, `... x 1 x t`."""
        if self.map_name == "linear":
            return G
        if self.map_name == "relu":
            return arc_cosine_pair(q1, q2, G)[0] / math.pi
        precision = (-2.0 * self.log_lengthscale[0, layer].double()).exp()
        if self.map_name == "normalized-se":
            return torch.exp(precision * (G * (q1.rsqrt() * q2.rsqrt()) - 1.0))
        return torch.exp(-0.5 * precision * (q1 + q2 - 2.0 * G))

    def of_diagonal(self, q: Tensor) -> Tensor:
        """K of a point with itself."""
        return q if self.map_name in ("relu", "linear") else torch.ones_like(q)

    def first_features(self, x: Tensor) -> Tensor:
        """`... x n x (d + 1)` features with the inner products G_0."""
        z = (2.0 * x.double() - 1.0) * self.log_input_scale.double().exp() / x.shape[-1] ** 0.5
        bias = (0.5 * self.log_bias_variance.double()).exp().expand(*z.shape[:-1], 1)
        return torch.cat([z, bias], dim=-1)

    def cholesky(self, layer: int, G: Tensor) -> Tensor:
        """L of K(G) at the inducing points."""
        q = G.diagonal().unsqueeze(-1)
        K = self.of_gram(layer, G, q, q.mT)
        jitter = JITTER * K.diagonal().mean()
        return psd_safe_cholesky(K + jitter * torch.eye(len(K), dtype=K.dtype, device=K.device))

    def gram_matrices(self) -> list[Tensor]:
        """G_0, ..., G_L at the inducing points."""
        z = self.first_features(self.inducing)
        found = [z @ z.mT]
        for layer, M in enumerate(self.roots()):
            root = self.cholesky(layer, found[-1]) @ M
            found.append(root @ root.mT)
        return found

    def propagate(self, x1: Tensor, x2: Tensor, pairs: bool = False) -> Grams:
        """Inner products of the last layer's features at `... x s x d` and `... x t x d` inputs.

        With `pairs`, s = t, of each input with the other in its place only: `st` is `... x s x 1`.
        """
        i, s, t = (self.first_features(x) for x in (self.inducing, x1, x2))

        def products(a: Tensor, b: Tensor) -> Tensor:
            return (a * b).sum(-1, keepdim=True) if pairs else a @ b.mT

        G = Grams(
            i @ i.mT, s @ i.mT, t @ i.mT,
            s.square().sum(-1, keepdim=True), t.square().sum(-1, keepdim=True), products(s, t),
        )  # fmt: skip
        for layer, M in enumerate(self.roots()):
            L = self.cholesky(layer, G.ii)
            root = L @ M
            qi = G.ii.diagonal().unsqueeze(-2)
            A, B, ti, diagonals = [], [], [], []
            for gram, q in ((G.si, G.ss), (G.ti, G.tt)):
                K = self.of_gram(layer, gram, q, qi)
                a = torch.linalg.solve_triangular(L, K.mT, upper=False)
                b = M.mT @ a
                A.append(a)
                B.append(b)
                ti.append(b.mT @ root.mT)
                change = (b.square() - a.square()).sum(dim=-2).unsqueeze(-1)
                diagonals.append((self.of_diagonal(q) + change).clamp_min(1e-12))
            K = self.of_gram(layer, G.st, G.ss, G.tt if pairs else G.tt.mT)
            st = K + products(B[0].mT, B[1].mT) - products(A[0].mT, A[1].mT)
            G = Grams(root @ root.mT, ti[0], ti[1], diagonals[0], diagonals[1], st)
        return G

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: object,
    ) -> Tensor:
        """Covariances of `... x n x d` and `... x m x d` inputs: `... x n x m`, diagonal `... x n`.

        Raises:
            InputError: `last_dim_is_batch` is set.
        """
        if last_dim_is_batch:
            raise InputError("a deep kernel machine does not support last_dim_is_batch")
        dtype = x1.dtype
        shared = len(self.batch_shape) > 0 and all(self._same_for_all(x) for x in (x1, x2))
        if shared:
            x1, x2 = x1[..., 0, :, :], x2[..., 0, :, :]
        x1, x2 = self._known(x1), self._known(x2)
        G = self.propagate(x1, x2, pairs=diag)
        if diag and torch.equal(x1, x2):
            K = self.of_diagonal(G.ss)
        else:
            K = self.of_gram(self.layers, G.st, G.ss, G.tt if diag else G.tt.mT)
        K = K.unsqueeze(-3) if shared else K
        K = self.log_output_variance.double().exp() * K
        return (K.squeeze(-1) if diag else K).to(dtype)

    def _same_for_all(self, x: Tensor) -> bool:
        """Whether the outputs' dimension repeats the same inputs, as BoTorch's models make it."""
        first = x[..., :1, :, :] if x.ndim > 2 else x
        return x.ndim > 2 and x.shape[-3] == self.batch_shape[-1] and bool((x == first).all())

    def _known(self, x: Tensor) -> Tensor:
        """The inducing inputs in place of their repetitions in a batch, made by GPyTorch."""
        Z = self.inducing
        same = x.ndim > 2 and x.shape[-2:] == Z.shape and bool((x == Z).all())
        return Z if same else x


class DeepKernelMachineFeatures(FeatureMap):
    """Features of a deep Gaussian process of finite width with these Gram matrices.

    In each layer, random features psi of K give h = psi w, corrected by Matheron's rule for its
    values at the inducing points to have covariance G_l there.

    Args:
        kernel: The kernel to be represented, with its present parameters.
        num_inputs: Not used: BoTorch passes it, and counts inputs before they are transformed.
        num_outputs: Number of features, `WIDTH` times an even number for smooth kernels.
    """

    def __init__(self, kernel: DeepKernelMachineKernel, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.kernel, self.num_outputs = kernel, num_outputs
        self.batch_shape = kernel.batch_shape
        self.input_transform = None
        self.output_transform = None
        options = {"dtype": torch.float64, "device": kernel.device}
        width, P = kernel.inducing.shape[-1] + 1, len(kernel.inducing)
        self.frequencies, self.weights, self.updates = [], [], []
        h, grams = kernel.first_features(kernel.inducing), kernel.gram_matrices()
        for layer, M in enumerate(kernel.roots()):
            self.frequencies.append(torch.randn(width, WIDTH, **options))
            psi = self._random(layer, h)
            W = torch.randn(psi.shape[-1], WIDTH, **options) / WIDTH**0.5
            values = torch.randn(P, WIDTH, **options) / WIDTH**0.5
            # Values at the inducing points with the covariance G_l, and the rule with the kernel of
            # these features, as everywhere else.
            values = kernel.cholesky(layer, grams[layer]) @ M @ values
            G = h @ h.mT
            change = torch.cholesky_solve(values - psi @ W, kernel.cholesky(layer, G))
            self.weights.append(W)
            self.updates.append((h, change))
            q = G.diagonal().unsqueeze(-1)
            h = psi @ W + kernel.of_gram(layer, G, q, q.mT) @ change
            width = WIDTH
        waves = 1 if kernel.map_name in ("relu", "linear") else 2
        count = width if kernel.map_name == "linear" else num_outputs // waves
        self.frequencies.append(torch.randn(width, count, **options))

    def _random(self, layer: int, h: Tensor) -> Tensor:
        """Random features of K, given features of the layer below."""
        kernel, frequency = self.kernel, self.frequencies[layer]
        if kernel.map_name == "linear":
            return h
        if kernel.map_name == "relu":
            return torch.relu(h @ frequency) * (2.0 / frequency.shape[-1]) ** 0.5
        if kernel.map_name == "normalized-se":
            h = h / h.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        phase = h @ frequency * (-kernel.log_lengthscale[0, layer].double()).exp()
        return torch.cat([phase.sin(), phase.cos()], dim=-1) / frequency.shape[-1] ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        """Features of `... x n x d` inputs: `... x n x num_outputs`, in the dtype of `x`."""
        kernel = self.kernel
        h = kernel.first_features(x)
        for layer, (W, (below, change)) in enumerate(zip(self.weights, self.updates, strict=True)):
            q = h.square().sum(dim=-1, keepdim=True).clamp_min(1e-12)
            qi = below.square().sum(dim=-1).unsqueeze(-2)
            K = kernel.of_gram(layer, h @ below.mT, q, qi)
            h = self._random(layer, h) @ W + K @ change
        psi = self._random(kernel.layers, h)
        return (psi * (0.5 * kernel.log_output_variance.double()).exp()).to(x.dtype)
