"""Networks that are trained once and used by many evaluations: teachers, pretrained networks.

Each is kept in memory and in the user's cache (`$XDG_CACHE_HOME` or `~/.cache`, `bo-surrogates`,
`networks`) under a word that stands for all that decides its weights. Processes that want the same
one wait for the first to train it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from bo_surrogates.errors import InputError, RunError
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.threads import limited_threads
from problems.documented.data import LabelledData
from problems.documented.model_files import load_weights, save_network
from problems.documented.training import Hooks, Training, TrainingConfig, run

VERSION = 1  # to be raised when the same description comes to mean another training
IN_MEMORY = 8

_memory: OrderedDict[str, nn.Module] = OrderedDict()


def cached_network(
    description: Mapping[str, Any],
    make: Callable[[], nn.Module],
    train: Callable[[nn.Module], None],
    *,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
) -> nn.Module:
    """A trained network, from the cache or trained now.

    Args:
        description: Plain data, all that decides the trained weights: architecture, data,
            training, seed.
        make: The untrained network, on the CPU.
        train: Trains it in place, on the device.
        device: Where it is wanted.
        folder: Where it is kept; the user's cache if None. Where that cannot be written it is kept
            in memory only.

    Returns:
        A copy in evaluation mode whose parameters take no gradients.

    Raises:
        RunError: Its training diverged.
    """
    told = json.dumps({"version": VERSION, **description}, sort_keys=True)
    word = hashlib.sha256(told.encode()).hexdigest()[:32]
    if word not in _memory:
        with limited_threads(1):
            _memory[word] = _from_disk(word, told, make, train, device, folder)
        while len(_memory) > IN_MEMORY:
            _memory.popitem(last=False)
    _memory.move_to_end(word)
    return copy.deepcopy(_memory[word]).to(device).eval().requires_grad_(False)


def _from_disk(
    word: str,
    told: str,
    make: Callable[[], nn.Module],
    train: Callable[[nn.Module], None],
    device: torch.device | str,
    folder: Path | None,
) -> nn.Module:
    place = networks_folder() if folder is None else folder
    path = place / f"{word}.safetensors"
    network = make()
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path) + ".lock")
        lock.acquire()
    except OSError:  # a read-only home: every process trains its own
        return _trained(network, train, device)
    try:
        try:
            load_weights(path, network)
        except InputError:  # not there yet, or damaged on the disk: it is only a cache
            network = _trained(make(), train, device)
            try:
                save_network(path, network, json.loads(told))
            except RunError:
                return network  # a full disk
        return network
    finally:
        lock.release()


def _trained(
    network: nn.Module, train: Callable[[nn.Module], None], device: torch.device | str
) -> nn.Module:
    network = network.to(device)
    train(network)
    return network.cpu().eval()


def networks_folder() -> Path:
    """Where trained networks are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "bo-surrogates" / "networks"


def cached_classifier(
    architecture: Mapping[str, Any],
    make: Callable[[], nn.Module],
    data: LabelledData,
    training: TrainingConfig,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    hooks: Hooks | None = None,
    folder: Path | None = None,
) -> nn.Module:
    """A classifier trained on the training part of some data, from the cache or trained now.

    Args:
        architecture: Plain data, what `make` (and `hooks`) depend on; name the network in it.
        make: Draws the initial weights from torch's global generator, which is seeded for it.
        data: On the device.
        training: How it is trained.
        seed: Of weights and training.
        device: Where it is wanted.
        hooks: See `Training`.
        folder: See `cached_network`.

    Returns:
        See `cached_network`.

    Raises:
        RunError: Its training diverged.
    """

    def seeded() -> nn.Module:
        with fixed_seed(derive_seed(seed, "initial weights")):
            return make()

    def train(network: nn.Module) -> None:
        run(Training(network, data.train_x, data.train_y, training, seed, hooks))

    description = {
        "architecture": dict(architecture),
        "data": data.digest(),
        "training": training.to_dict(),
        "seed": seed,
    }
    return cached_network(description, seeded, train, device=device, folder=folder)
