"""Networks that are trained once: in memory, on the disk, by what decides them."""

import pytest
import torch
from torch import nn

from bo_surrogates.errors import InputError
from problems.documented import teachers
from problems.documented.data import load_data
from problems.documented.model_files import load_weights, read_tensors
from problems.documented.teachers import cached_classifier, cached_network
from problems.documented.training import TrainingConfig, error_rate


@pytest.fixture
def counted():
    """A network, how it is "trained", and how often it was."""
    calls = []

    def train(network):
        calls.append(network)
        with torch.no_grad():
            network.weight.fill_(len(calls))

    return (lambda: nn.Linear(2, 2)), train, calls


def test_a_network_is_trained_once_and_then_read_from_the_disk(tmp_path, counted):
    make, train, calls = counted
    first = cached_network({"a": 1}, make, train, folder=tmp_path)
    assert not any(p.requires_grad for p in first.parameters())
    assert not first.training
    with torch.no_grad():
        first.weight.zero_()  # a copy: what a user does to it stays with the user
    assert cached_network({"a": 1}, make, train, folder=tmp_path).weight.eq(1).all()
    teachers._memory.clear()
    assert cached_network({"a": 1}, make, train, folder=tmp_path).weight.eq(1).all()
    assert len(calls) == 1
    assert cached_network({"a": 2}, make, train, folder=tmp_path).weight.eq(2).all()


def test_a_damaged_file_is_trained_anew(tmp_path, counted):
    make, train, calls = counted
    cached_network({"b": 1}, make, train, folder=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    teachers._memory.clear()
    cached_network({"b": 1}, make, train, folder=tmp_path)
    assert len(calls) == 2
    assert read_tensors(path)[1] == {"b": 1, "version": teachers.VERSION}


def test_a_folder_that_cannot_be_made_costs_only_the_memory_of_the_disk(tmp_path, counted):
    make, train, calls = counted
    (tmp_path / "file").write_text("")
    for _ in range(2):
        cached_network({"c": 1}, make, train, folder=tmp_path / "file" / "below")
    assert len(calls) == 1


def test_a_teacher_learns_and_is_decided_by_its_data_and_seed(tmp_path):
    data, config = load_data("wine"), TrainingConfig(epochs=30, batch_size=32, learning_rate=0.03)
    found = {
        (seed, train): cached_classifier(
            {"network": "linear"},
            lambda: nn.Linear(13, 3),
            data if train == "all" else load_data("wine", limit=60),
            config,
            seed,
            folder=tmp_path,
        )
        for seed, train in ((0, "all"), (1, "all"), (0, "few"))
    }
    weights = [network.weight for network in found.values()]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    assert error_rate(found[0, "all"], data.test_x, data.test_y) < 0.15


def test_weights_of_another_network_and_files_of_another_kind_are_refused(tmp_path, counted):
    make, train, _ = counted
    cached_network({"d": 1}, make, train, folder=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    with pytest.raises(InputError, match="do not fit"):
        load_weights(path, nn.Linear(3, 2))
    with pytest.raises(InputError, match="no file"):
        load_weights(tmp_path / "none.safetensors", nn.Linear(2, 2))
    path.write_text("hello")
    with pytest.raises(InputError, match="not a file of tensors"):
        load_weights(path, nn.Linear(2, 2))
