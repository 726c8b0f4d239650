from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from benchmarks.sparse_classification import fit, probabilities, score
from bo_surrogates.inference.ssvi import Replacement
from problems.documented.data import load_data


def test_changing_the_active_sets_beats_keeping_those_of_the_start() -> None:
    data = load_data("digits")
    X, labels = data.test_x.flatten(start_dim=1), data.test_y
    nll, accuracy = [], []
    for replacement in (Replacement(interval=10), Replacement(fraction=0.0)):
        network, state = fit(data, 0.05, replacement, steps=120, width=50, learning_rate=2e-2)
        for layer, size in zip(network.unpack(state.mask), (160, 125, 25), strict=True):
            assert (layer.weight.sum(dim=(-2, -1)) == size).all()
        assert not state.std[:, -10:].any()  # biases without uncertainty
        scores = [score(p, labels) for p in probabilities(network, state, X)]
        nll.append([s.nll for s in scores])
        accuracy.append([s.accuracy for s in scores])
    assert max(nll[0]) < min(nll[1])  # every member against every other
    assert min(accuracy[0]) > max(accuracy[1])


def test_scores_equal_their_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=generator)
    labels = torch.randint(4, (200,), generator=generator)
    scores = score(logits.softmax(dim=-1), labels)
    assert scores.nll == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert scores.accuracy == (logits.argmax(dim=-1) == labels).double().mean()
    # All certain, half of them right: a gap of one half in the last bin.
    certain = functional.one_hot(labels, 4).double()
    half = torch.where(torch.arange(200) < 100, labels, (labels + 1) % 4)
    assert score(certain.clamp_min(1e-12), half).ece == pytest.approx(0.5)
