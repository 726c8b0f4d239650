"""The tuning of a documented model: a problem whose evaluation trains a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bo_surrogates.config import Config, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Space, Values
from bo_surrogates.threads import limited_threads
from problems.base import Problem
from problems.documented.data import ImageData, load_images
from problems.documented.training import Epoch, TrainingConfig, error_rate, train


@dataclass(frozen=True)
class TuningConfig(Config):
    """Options that all tuning problems share.

    Attributes:
        epochs: Passes over the training set in one evaluation.
        batch_size: Images a training step.
        weight_decay: L2 penalty.
        train_fraction: Share of the data to train on; the error is measured on the rest.
        data_seed: Of the split.
        training_seed: Of the initial weights and the order of images where an evaluation is asked
            for "without noise".
    """

    epochs: int = integer(10, 1, 10_000)
    batch_size: int = integer(64, 2, 65_536)
    weight_decay: float = real(5e-5, 0.0, 1.0)
    train_fraction: float = real(0.6, 0.05, 0.95)
    data_seed: int = integer(0, 0, 2**31 - 1)
    training_seed: int = integer(0, 0, 2**31 - 1)


class TuningProblem(Problem):
    """Base of the problems that train a network at every point.

    An observation at seed s trains from initial weights and in an order of images that follow
    from s, on one thread, so that it is the same in any process. The noise of the problem is what
    changes with s. `evaluate_true` and `problem(X, noise=False)` train at the configured
    `training_seed`: the function they return has no noise, yet is one draw of it.

    A subclass implements `measure`. For the arguments see `Problem`; there is no `noise_std`.

    Args:
        device: Where to train, e.g. "cpu" or "cuda".

    Raises:
        InputError: There is no such device.
    """

    config_class: ClassVar[type[TuningConfig]] = TuningConfig
    config: TuningConfig

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        *,
        config: TuningConfig,
        constraints: Sequence[OutcomeConstraint] = (),
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        super().__init__(space, objectives, constraints=constraints, config=config, negate=negate)
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device!r} cannot be used here: {error}") from error

    @abstractmethod
    def measure(
        self, values: Values, seed: int, on_epoch: Callable[[Epoch], None] | None = None
    ) -> dict[str, float]:
        """Train and measure once.

        Args:
            values: A valid point of `space`.
            seed: Of everything random.
            on_epoch: Called after every epoch of training.

        Returns:
            Every metric by name.

        Raises:
            RunError: The training failed.
        """

    def data(self) -> ImageData:
        """The images to train and to test on."""
        return load_images("digits", self.config.train_fraction, self.config.data_seed)

    def train_classifier(
        self,
        make_network: Callable[[], nn.Module],
        learning_rate: float,
        seed: int,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> tuple[nn.Module, float]:
        """Make a network and train it by the configured schedule.

        Args:
            make_network: Draws the initial weights from torch's global generator, which is seeded
                for the time of the call.
            learning_rate: Of Adam, at the start.
            seed: Of the weights and the order of images.
            on_epoch: See `measure`.

        Returns:
            The trained network and its test error in [0, 1].
        """
        data = self.data().to(self.device)
        schedule = TrainingConfig(
            epochs=self.config.epochs,
            batch_size=self.config.batch_size,
            learning_rate=learning_rate,
            weight_decay=self.config.weight_decay,
        )
        # Threads split the sums of a convolution, so that a trained network's last bits depend on
        # their number; small networks are no slower on one.
        with limited_threads(1):
            with fixed_seed(derive_seed(seed, "initial weights")):
                network = make_network().to(self.device)
            train(network, data.train_images, data.train_labels, schedule, seed, on_epoch)
            return network, error_rate(network, data.test_images, data.test_labels)

    def _true_metrics(self, X: Tensor) -> Tensor:
        return self._measure_rows(X, lambda row: self.config.training_seed)

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        drawn = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        return self._measure_rows(X, lambda row: derive_seed(drawn, "point", row))

    def _measure_rows(self, X: Tensor, seed_of: Callable[[int], int]) -> Tensor:
        rows = []
        for row, x in enumerate(X.reshape(-1, self.dim)):
            metrics = self.measure(self.space.decode(x), seed_of(row))
            rows.append([metrics[name] for name in self.metrics])
        return (
            torch.tensor(rows, dtype=torch.float64).to(X).reshape(*X.shape[:-1], len(self.metrics))
        )
