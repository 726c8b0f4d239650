"""Networks and trainings on disk: safetensors and JSON, never a pickle, written atomically."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bo_surrogates.errors import InputError, RunError
from problems.documented.training import State


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and plain data to one safetensors file; whoever reads it sees all or nothing.

    Raises:
        RunError: It cannot be written.
    """
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        os.close(handle)
        try:
            save_file(owned, temporary, metadata={"facts": json.dumps(facts)})
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be written: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inverse of `write_tensors`.

    Raises:
        InputError: There is no such file, or it is not one of these.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"no file {str(path)!r}") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a file of tensors that was written here: {error}") from error


def save_network(path: Path, network: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write a network's weights and buffers; raises as `write_tensors`."""
    write_tensors(path, network.state_dict(), facts)


def load_weights(path: Path, network: nn.Module) -> dict[str, Any]:
    """Put weights from a file of `save_network` into a network, which is then in evaluation mode.

    Returns:
        The facts stored with them.

    Raises:
        InputError: There is no such file, or its tensors are not the network's.
    """
    tensors, facts = read_tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit the network: {error}") from error
    network.eval()
    return facts


def save_state(path: Path, state: State) -> None:
    """Write the state of a training; raises as `write_tensors`."""
    write_tensors(path, state.tensors, state.facts)


def load_state(path: Path) -> State:
    """Inverse of `save_state`; raises as `read_tensors`."""
    return State(*read_tensors(path))
