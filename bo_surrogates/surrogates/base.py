"""The surrogate contract: data checks, scaling in one place, and what every model offers.

A surrogate is a `botorch.models.model.Model` with the mixin `Surrogate`. It is built, fitted,
through its registered entry:

    model = SURROGATES["gp"].build(train_X, train_Y, bounds=bounds, seed=0)
    posterior = model.posterior(X)          # in the units of train_Y

Scaling is BoTorch's own (`Normalize`, `Standardize`) and is undone by the posterior. The same
classes are handed to Ax, which passes its transforms by the same argument names.
"""

from __future__ import annotations

import json
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from botorch.exceptions.errors import ModelFittingError, UnsupportedError
from botorch.models.model import Model
from botorch.models.transforms.input import (
    ChainedInputTransform,
    InputTransform,
    Normalize,
    NumericToCategoricalEncoding,
)
from botorch.models.transforms.outcome import OutcomeTransform, Standardize
from linear_operator.utils.errors import NanError, NotPSDError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributions import Normal

from bo_surrogates.config import Config
from bo_surrogates.errors import FitError, FitWarning, InputError
from bo_surrogates.inference.cholesky import recorded_jitter
from bo_surrogates.posteriors.fixed_points import FixedPoints
from bo_surrogates.registry import Registry
from bo_surrogates.seeding import fixed_seed

PosteriorKind = Literal["gaussian", "ensemble", "mixture", "student-t"]
FORMAT_VERSION = 1  # of files written by `Surrogate.save`


@dataclass(frozen=True)
class Capabilities:
    """What a surrogate can do, declared on its entry.

    Attributes:
        posterior: Kind of predictive distribution.
        multi_output: Takes `train_Y` with more than one column.
        exact_conditioning: `condition_on_observations` is available and exact.
        observation_variance: Uses `train_Yvar`.
        categorical: Takes categorical inputs.
        max_n: Practical number of training points.
        max_d: Practical number of inputs.
        cost: Order of the time of one fit at n = 100, d = 6 on one core.
    """

    posterior: PosteriorKind
    multi_output: bool = True
    exact_conditioning: bool = False
    observation_variance: bool = True
    categorical: bool = True
    max_n: int = 2000
    max_d: int = 100
    cost: Literal["< 1 s", "seconds", "minutes"] = "< 1 s"


@dataclass(frozen=True)
class FitDiagnostics:
    """How a fit went; logged with the campaign.

    Attributes:
        converged: Whether the model may be relied on.
        message: Why not, or empty.
        values: Figures by name, e.g. final loss, steps, acceptance, R-hat.
    """

    converged: bool
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingData:
    """Checked training data with the bounds and categories of the inputs.

    Attributes:
        X: `n x d` inputs.
        Y: `n x m` outcomes.
        Yvar: `n x m` observation variances, or None.
        bounds: `2 x d` input bounds, or None where X is in the unit cube.
        categorical_features: Index of each categorical input and its number of categories
            (coded 0, 1, ...).
    """

    X: Tensor
    Y: Tensor
    Yvar: Tensor | None = None
    bounds: Tensor | None = None
    categorical_features: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, tensor in (("train_X", self.X), ("train_Y", self.Y), ("train_Yvar", self.Yvar)):
            if tensor is None:
                continue
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                raise InputError(f"{name} must be a floating-point tensor, got {_describe(tensor)}")
            if tensor.dtype not in (torch.float32, torch.float64):
                raise InputError(f"{name} must be float32 or float64, got {tensor.dtype}")
            if tensor.ndim != 2:
                raise InputError(
                    f"{name} must have shape n x {'d' if name == 'train_X' else 'm'}, "
                    f"got {tuple(tensor.shape)}"
                )
            bad = ~torch.isfinite(tensor)
            if bad.any():
                row, column = bad.nonzero()[0].tolist()
                raise InputError(
                    f"{name} holds {int(bad.sum())} value(s) that are not finite, the first at row "
                    f"{row}, column {column}; remove those observations"
                )
        n, d = self.X.shape
        if n < 1 or d < 1:
            raise InputError(
                f"train_X must hold at least one point and one input, got shape {(n, d)}"
            )
        if self.Y.shape[0] != n or self.Y.shape[1] < 1:
            raise InputError(
                f"train_Y must have shape {n} x m to match train_X, got {tuple(self.Y.shape)}"
            )
        if self.Yvar is not None:
            if self.Yvar.shape != self.Y.shape:
                raise InputError(
                    f"train_Yvar must have train_Y's shape {tuple(self.Y.shape)}, "
                    f"got {tuple(self.Yvar.shape)}"
                )
            if (self.Yvar < 0).any():
                raise InputError("train_Yvar holds negative variances; it takes variances >= 0")
        if self.X.dtype != self.Y.dtype or self.X.device != self.Y.device:
            raise InputError(
                f"train_X ({self.X.dtype}, {self.X.device}) and train_Y ({self.Y.dtype}, "
                f"{self.Y.device}) must share dtype and device"
            )
        if self.bounds is not None:
            if not isinstance(self.bounds, Tensor):
                raise InputError(f"bounds must be a tensor, got {_describe(self.bounds)}")
            if self.bounds.shape != (2, d):
                raise InputError(f"bounds must have shape 2 x {d}, got {tuple(self.bounds.shape)}")
            if not (torch.isfinite(self.bounds).all() and (self.bounds[0] < self.bounds[1]).all()):
                raise InputError("bounds must be finite, each lower bound below its upper bound")
        for index, cardinality in self.categorical_features.items():
            if not 0 <= index < d or cardinality < 2:
                raise InputError(
                    f"categorical_features[{index}] = {cardinality}: expected an index below {d} "
                    "and at least two categories"
                )
            codes = self.X[:, index]
            if not (torch.isin(codes, torch.arange(cardinality).to(codes)).all()):
                raise InputError(
                    f"categorical_features[{index}] = {cardinality}: column {index} of train_X "
                    f"must hold codes 0, 1, ..., {cardinality - 1}, "
                    f"got {codes.unique().tolist()[:5]}"
                )

    def input_transform(self) -> InputTransform | None:
        """Categories to one-hot columns (two categories stay one column), bounds to [0, 1].

        A model sees one-hot columns because that serves every kind of surrogate alike, and is
        what Ax does.
        """
        d = self.X.shape[-1]
        # In the order of the columns: BoTorch pairs encoders and columns by their positions.
        wide = {i: k for i, k in sorted(self.categorical_features.items()) if k > 2}
        transforms: dict[str, InputTransform] = {}
        if wide:
            transforms["one_hot"] = NumericToCategoricalEncoding(
                dim=d,
                categorical_features=wide,
                encoders={i: partial(_one_hot, num_classes=k) for i, k in wide.items()},
            )
        if self.bounds is not None:
            columns = []
            for i, column in enumerate(self.bounds.to(self.X).T):
                columns += (
                    [torch.tensor([0.0, 1.0]).to(self.X)] * wide[i] if i in wide else [column]
                )
            bounds = torch.stack(columns, dim=-1)
            transforms["normalize"] = Normalize(d=bounds.shape[-1], bounds=bounds)
        if not transforms:
            return None
        return (
            ChainedInputTransform(**transforms) if len(transforms) > 1 else transforms.popitem()[1]
        )

    def outcome_transform(self) -> OutcomeTransform:
        """Standardization whose threshold for "constant" is relative to the outcomes' size.

        BoTorch's absolute threshold (1e-8) would leave an outcome in, say, mol/m3 at 1e-9
        unscaled. An outcome with rounding noise only is treated as constant: scaled by 1.
        """
        return Standardize(m=self.Y.shape[-1], min_stdv=smallest_meaningful_stdv(self.Y))


def smallest_meaningful_stdv(Y: Tensor) -> float:
    """Standard deviation below which outcomes `n x m` differ by rounding errors only."""
    scale = Y.abs().amax(dim=0).min().item()
    return max(scale * 16 * torch.finfo(Y.dtype).eps, 1e-30)


def _one_hot(X: Tensor, num_classes: int) -> Tensor:
    return torch.nn.functional.one_hot(X.round().long(), num_classes)


def _describe(thing: object) -> str:
    return str(thing.dtype) if isinstance(thing, Tensor) else type(thing).__name__


FunctionSamples = Callable[[Tensor], Tensor]


class Surrogate(Model):
    """Mixin of every registered model.

    A subclass's constructor takes `(train_X, train_Y, train_Yvar=None, input_transform=None,
    outcome_transform=None, *, config=None, seed=None)`, prepares an unfitted model and does no
    work; `fit` does it. Everything learnt lives in `state_dict()`. (Ax looks for the transforms by
    name among the arguments that are not keyword-only.)
    """

    config_class: ClassVar[type[Config]]
    config: Any  # an instance of config_class
    seed: int
    diagnostics: FitDiagnostics = FitDiagnostics(False, "not fitted yet")
    entry_name: str = ""  # set by Entry.build
    training_data: TrainingData | None = None  # set by Entry.build

    def start(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None,
        outcome_transform: OutcomeTransform | None,
        config: Config | None,
        seed: int | None,
    ) -> tuple[Tensor, Tensor | None]:
        """First steps of the constructor of a model that is no GPyTorch model.

        Keeps the configuration (its defaults if None), the seed (drawn if None) and the transform,
        trained.

        Returns:
            Outcomes and their variances as the model is fitted to them, without a graph.
        """
        self.config = config or self.config_class()
        self.seed = seed_or_random(seed)
        Y, Yvar = train_Y, train_Yvar
        if outcome_transform is not None:
            outcome_transform.train()
            Y, Yvar = outcome_transform(train_Y, train_Yvar, X=train_X)
            self.add_module("outcome_transform", outcome_transform.to(train_Y))
        return Y.detach(), None if Yvar is None else Yvar.detach()

    def prepare(self) -> None:
        """What a subclass adds to the constructed, unfitted model; ends every constructor."""

    @abstractmethod
    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Fit to the data given at construction.

        Args:
            warm_start: A fitted model of the same class, normally the previous iteration's, whose
                state is a good starting point.

        Raises:
            FitError: No usable model could be had.
        """

    @property
    def has_fixed_points(self) -> bool:
        """Whether `fix_points` is available: one outcome, Gaussian, its scaling affine."""
        return False

    def fix_points(self, X: Tensor) -> FixedPoints:
        """The joint prediction at fixed points and others, which computes the former once.

        Args:
            X: `r x d` inputs.

        Raises:
            UnsupportedError: See `has_fixed_points`.
        """
        raise UnsupportedError(f"{type(self).__name__} does not predict beside fixed points")

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances of the function's values, without covariances where that is cheaper.

        Args:
            X: `n x d` inputs.

        Returns:
            Two `n x m` tensors, in the units of the outcomes and their square.
        """
        if self.has_fixed_points:
            return self.fix_points(X[:0]).marginals(X)
        posterior = self.posterior(X)
        return posterior.mean, posterior.variance  # type: ignore[attr-defined]

    @classmethod
    def construct_inputs(cls, training_data: Any, **options: Any) -> dict[str, Any]:
        """What BoTorch's `SupervisedDataset` and Ax's model options become as arguments."""
        for key in ("categorical_features", "task_feature", "fidelity_features", "one_hot"):
            options.pop(key, None)
        inputs = {"train_X": training_data.X, "train_Y": training_data.Y, **options}
        if training_data.Yvar is not None:
            inputs["train_Yvar"] = training_data.Yvar
        return inputs

    def log_predictive_density(self, X: Tensor, Y: Tensor) -> Tensor:
        """Log density of observations, noise included, point by point.

        Args:
            X: `batch_shape x n x d` inputs.
            Y: `batch_shape x n x m` observed outcomes.

        Returns:
            `batch_shape x n x m` log densities in 1 / units of Y.
        """
        posterior = self.posterior(X, observation_noise=True)
        mean, variance = posterior.mean, posterior.variance  # type: ignore[attr-defined]
        return Normal(mean, variance.clamp_min(torch.finfo(mean.dtype).tiny).sqrt()).log_prob(Y)

    def quantile(self, X: Tensor, levels: Tensor, observation_noise: bool = False) -> Tensor:
        """Marginal predictive quantiles.

        Args:
            X: `batch_shape x n x d` inputs.
            levels: `k` levels in (0, 1).
            observation_noise: Of observations instead of the noise-free function.

        Returns:
            `k x batch_shape x n x m` quantiles in units of Y.
        """
        if not ((levels > 0) & (levels < 1)).all():
            raise InputError(f"quantile levels must be in (0, 1), got {levels.tolist()}")
        posterior = self.posterior(X, observation_noise=observation_noise)
        # One level at a time: BoTorch's own quantiles drop the first dimension of a single level.
        return torch.stack([posterior.quantile(level) for level in levels.to(X).reshape(-1)])

    @abstractmethod
    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """Draw k functions from the posterior, for Thompson sampling.

        Returns:
            A differentiable callable from `batch_shape x n x d` to `k x batch_shape x n x m`, in
            units of Y; the same input always gives the same output.
        """

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a safetensors file (no pickle); `load_surrogate` reads it.

        Raises:
            InputError: The model was not made by its entry's `build`.
        """
        data = self.training_data
        if data is None:
            raise InputError(
                "only a surrogate as its registered entry's build() made it can be saved; this one "
                "was constructed directly, or conditioned on further observations: build it on all "
                "of its data"
            )
        tensors = {
            f"state.{k}": v.detach().contiguous().clone() for k, v in self.state_dict().items()
        }
        for name in ("X", "Y", "Yvar", "bounds"):
            if (tensor := getattr(data, name)) is not None:
                tensors[f"data.{name}"] = tensor.detach().contiguous().clone()
        header = {
            "format": FORMAT_VERSION,
            "surrogate": self.entry_name,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "categorical_features": {str(k): v for k, v in data.categorical_features.items()},
            "diagnostics": {"converged": self.diagnostics.converged,
                            "message": self.diagnostics.message,
                            "values": dict(self.diagnostics.values)},
        }  # fmt: skip
        save_file(tensors, str(path), metadata={"bo_surrogates": json.dumps(header)})


@dataclass(frozen=True)
class SurrogateEntry:
    """A registered surrogate.

    Attributes:
        name: Short name used in files and on the command line.
        model_class: The `Surrogate`.
        summary: One line for the user.
        paper: Where the method is described.
        capabilities: See `Capabilities`.
    """

    name: str
    model_class: type[Surrogate]
    summary: str
    paper: str
    capabilities: Capabilities

    @property
    def config_class(self) -> type[Config]:
        """The configuration of the model."""
        return self.model_class.config_class

    def build(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        *,
        bounds: Tensor | None = None,
        categorical_features: Mapping[int, int] | None = None,
        config: Config | Mapping[str, Any] | None = None,
        seed: int | None = None,
        warm_start: Surrogate | None = None,
    ) -> Surrogate:
        """Make a fitted model.

        Args:
            train_X: `n x d` inputs, n >= 1, float32 or float64; the model follows its dtype and
                device.
            train_Y: `n x m` outcomes in the user's units.
            train_Yvar: `n x m` variances of the outcomes, if known.
            bounds: `2 x d` bounds of the inputs; None where they are in the unit cube already.
            categorical_features: Index and number of categories of each categorical input.
            config: The model's configuration, as an instance or as plain data.
            seed: Makes the fit deterministic; None draws one from torch's global generator.
            warm_start: A fitted model of the same entry to start from. The loop and campaigns pass
                none (`loop.fit` says why).

        Raises:
            InputError: Bad data or configuration; the message names the argument.
            FitError: The model could not be fitted.

        Warns:
            FitWarning: The fit's diagnostics failed.
        """
        data = TrainingData(train_X, train_Y, train_Yvar, bounds, dict(categorical_features or {}))
        self.check(data)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise InputError(f"seed must be an integer or None, got {seed!r}")
        if warm_start is not None and not isinstance(warm_start, self.model_class):
            raise InputError(
                f"warm_start must be a fitted {self.name!r} model, got {type(warm_start).__name__}"
            )
        model = self._construct(data, self.configure(config), seed)
        return fit(model, warm_start)

    def check(self, data: TrainingData) -> None:
        """Refuse data of a kind that the model does not take.

        Raises:
            InputError: Categorical inputs, several outcomes or variances, of which it takes none.
        """
        self.check_categorical([f"input {i}" for i in sorted(data.categorical_features)])
        if data.Y.shape[-1] > 1 and not self.capabilities.multi_output:
            raise InputError(
                f"surrogate {self.name!r} takes one outcome, got {data.Y.shape[-1]}; build one "
                "model an outcome"
            )
        if data.Yvar is not None and not self.capabilities.observation_variance:
            raise InputError(
                f"surrogate {self.name!r} does not use train_Yvar; leave it out, or choose one of: "
                + ", ".join(
                    e.name for e in SURROGATES.values() if e.capabilities.observation_variance
                )
            )

    def check_categorical(self, inputs: Sequence[str]) -> None:
        """Refuse categorical inputs where the model does not take them.

        Args:
            inputs: The categorical inputs, as the message is to name them.

        Raises:
            InputError: There are some, and the model takes none.
        """
        if inputs and not self.capabilities.categorical:
            raise InputError(
                f"surrogate {self.name!r} does not take categorical inputs ({', '.join(inputs)}); "
                "choose one of: "
                + ", ".join(e.name for e in SURROGATES.values() if e.capabilities.categorical)
            )

    def configure(self, config: Config | Mapping[str, Any] | None) -> Config:
        """The configuration as an instance of `config_class`.

        Raises:
            InputError: It is another model's configuration, or has unknown or bad fields.
        """
        if config is None:
            return self.config_class()
        if isinstance(config, self.config_class):
            return config
        if isinstance(config, Config):
            raise InputError(
                f"surrogate {self.name!r} takes a {self.config_class.__name__}, "
                f"got a {type(config).__name__}"
            )
        return self.config_class.from_dict(config)

    def _construct(self, data: TrainingData, config: Config, seed: int | None) -> Surrogate:
        model = self.model_class(
            data.X,
            data.Y,
            data.Yvar,
            config=config,
            seed=seed,
            input_transform=data.input_transform(),
            outcome_transform=data.outcome_transform(),
        )
        model.entry_name = self.name
        model.training_data = data
        return model


SURROGATES: Registry[SurrogateEntry] = Registry("surrogate", group="bo_surrogates.surrogates")


def seed_or_random(seed: int | None) -> int:
    """The seed, or one drawn from torch's global generator."""
    return int(torch.randint(2**31 - 1, ())) if seed is None else int(seed)


def fit(model: Surrogate, warm_start: Surrogate | None = None) -> Surrogate:
    """Fit a constructed model under its seed; warn where its diagnostics failed.

    Every fit goes through here, the registry's and Ax's. What had to be added to a covariance
    matrix in a fit that factorizes any is "jitter" in its diagnostics (`inference/cholesky.py`).

    Raises:
        FitError: A covariance matrix cannot be factorized, or no search for the hyper-parameters
            succeeded.
    """
    name = model.entry_name or type(model).__name__
    try:
        with fixed_seed(model.seed), recorded_jitter() as jitter:
            model.fit(warm_start=warm_start)
    except (ModelFittingError, NotPSDError, NanError, torch.linalg.LinAlgError) as error:
        data = model.training_data
        points = "its data" if data is None else f"{len(data.X)} points"
        raise FitError(f"the {name} surrogate could not be fitted to {points}: {error}") from error
    if jitter.factorizations:
        values = {**model.diagnostics.values, "jitter": jitter.largest}
        model.diagnostics = replace(model.diagnostics, values=values)
    if not model.diagnostics.converged:
        warnings.warn(
            f"the fit of {name} is not to be relied on: {model.diagnostics.message}",
            FitWarning,
            stacklevel=3,
        )
    return model


def load_surrogate(path: str | Path) -> Surrogate:
    """Read a model written by `Surrogate.save`, fitted and ready to predict.

    Raises:
        InputError: The file is missing, not such a file, from a newer version, or of data of a
            kind that the surrogate does not take.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get("bo_surrogates")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read a surrogate from {path}: {error}") from error
    if text is None:
        raise InputError(f"{path} is a safetensors file, but not one written by Surrogate.save")
    try:
        header = json.loads(text)
        if header["format"] > FORMAT_VERSION:
            raise InputError(
                f"{path} was written by a newer version (format {header['format']}, this one reads "
                f"up to {FORMAT_VERSION}); upgrade bo-surrogates"
            )
        entry = SURROGATES[header["surrogate"]]
        data = TrainingData(
            tensors["data.X"],
            tensors["data.Y"],
            tensors.get("data.Yvar"),
            tensors.get("data.bounds"),
            {int(k): v for k, v in header["categorical_features"].items()},
        )
        entry.check(data)  # what it takes may have changed since
        model = entry._construct(data, entry.configure(header["config"]), header["seed"])
        model.eval()
        model.load_state_dict(
            {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        )
        model.diagnostics = FitDiagnostics(**header["diagnostics"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {error}; save the model again") from error
    return model
