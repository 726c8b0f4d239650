"""Building, caching and doing without the compiled kernel."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bo_surrogates.inference.native import library
from bo_surrogates.inference.native.kernel import CompiledPosterior
from bo_surrogates.inference.native.library import UnavailableError
from bo_surrogates.network_posterior import CollapsedNetworkPosterior, NetworkPosterior
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.noise_priors import LogNoisePrior

needs_compiler = pytest.mark.skipif(
    library.library() is None, reason="no compiled kernel on this machine (see the log)"
)
# Twice, with both posteriors: what a process does at its first use, and then.
SCRIPT = """
import torch
from bo_surrogates.network_posterior import NetworkPosterior, CollapsedNetworkPosterior
from bo_surrogates.networks import BatchedMLP
network = BatchedMLP(1, 1, 4, 1)
for kind in (NetworkPosterior, CollapsedNetworkPosterior):
    posterior = kind(network, torch.ones(2, 1), torch.ones(2, 1), network.scales(), torch.ones(1))
    value, _ = posterior(torch.ones(1, posterior.num_parameters))
    assert torch.isfinite(value).all()
    print(posterior._compiled is not None)
"""


def run(**environment: str) -> tuple[list[str], list[str]]:
    """Lines of the output and of the log of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True,
        env=os.environ | environment,
    )  # fmt: skip
    return done.stdout.split(), done.stderr.splitlines()


def test_without_a_compiler_torch_does_it_and_one_line_says_so(tmp_path: Path) -> None:
    output, lines = run(CXX="no-such-compiler", XDG_CACHE_HOME=str(tmp_path))
    assert output == ["False", "False"]
    (line,) = lines
    assert "no-such-compiler" in line
    assert library.SWITCH in line


def test_switched_off_it_is_silent(tmp_path: Path) -> None:
    output, lines = run(**{library.SWITCH: "0", "XDG_CACHE_HOME": str(tmp_path)})
    assert output == ["False", "False"]
    assert lines == []


def test_a_source_that_does_not_compile_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    failing = tmp_path / "failing-compiler"
    failing.write_text("#!/bin/sh\necho the reason >&2\nexit 1\n")
    failing.chmod(0o755)
    with pytest.raises(UnavailableError, match="set CXX(.|\n)*the reason"):
        library.load([str(failing)])
    assert list((tmp_path / "bo-surrogates").iterdir()) == []


def test_the_message_without_any_compiler_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match=r"install one(.|\n)*g\+\+(.|\n)*set CXX"):
        library.find_compiler()


@needs_compiler
def test_the_cache_is_private_complete_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = [*library.find_compiler(), "-O0"]
    with caplog.at_level(logging.INFO, library.__name__):
        folder = library.cache_folder()
        assert folder == tmp_path / "bo-surrogates"
        damaged = folder / f"{library._key(compiler, library.PROCESSOR)}.so"
        damaged.write_bytes(b"damaged")
        library.load(compiler)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == [damaged]  # and nothing half-written
        assert damaged.stat().st_size > 10_000
        assert len(caplog.records) == 1
        library.load(compiler)
        assert len(caplog.records) == 1
    assert library._key(compiler, ["-mtune=generic"]) != library._key(compiler, [])


def test_another_users_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library.tempfile, "gettempdir", lambda: str(tmp_path))
    assert library.cache_folder() == tmp_path / "bo-surrogates"
    monkeypatch.setattr(library, "_user", lambda: 4242)
    with pytest.raises(UnavailableError, match="not this user's folder(.|\n)*XDG_CACHE_HOME"):
        library.cache_folder()


@needs_compiler
@pytest.mark.parametrize("options", [("-mavx2", "-mfma"), ()], ids=["AVX2", "any processor"])
def test_narrower_vectors_give_the_same_results(options: tuple[str, ...]) -> None:
    if options and "avx2" not in library._features():
        pytest.skip("this processor has no AVX2")
    narrow = library.load(library.find_compiler(), options)
    generator = torch.Generator().manual_seed(0)
    for activation, kind, dtype in (
        ("tanh", NetworkPosterior, torch.float32),
        ("silu", NetworkPosterior, torch.float64),
        ("tanh", CollapsedNetworkPosterior, torch.float32),
        ("sine", CollapsedNetworkPosterior, torch.float64),
    ):
        network = BatchedMLP(3, 2, 21, 2, activation)
        X, Y = torch.randn(17, 5, generator=generator, dtype=dtype).split([3, 2], dim=-1)
        posterior = kind(network, X, Y, network.scales(), LogNoisePrior(-1.0, 0.5))
        at = torch.randn(2, posterior.num_parameters, generator=generator, dtype=dtype)
        value, gradient = posterior(at)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bo_surrogates.inference.native.kernel.library", lambda: narrow)
            del posterior.__dict__["_compiled"]
            assert isinstance(posterior._compiled, CompiledPosterior)
            other, other_gradient = posterior(at)
        tolerance = {torch.float32: 3e-6, torch.float64: 1e-13}[dtype]
        size = gradient.norm().item()
        torch.testing.assert_close(other, value, rtol=tolerance, atol=0)
        torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=tolerance * size)
