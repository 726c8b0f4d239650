"""Building, caching and doing without the compiled kernel."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bo_surrogates.inference.native import library
from bo_surrogates.inference.native.kernel import CompiledPosterior
from bo_surrogates.inference.native.library import UnavailableError
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.noise_priors import LogNoisePrior
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior

needs_compiler = pytest.mark.skipif(
    library.library() is None, reason="no compiled kernel on this machine (see the log)"
)


@pytest.fixture
def first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has not used the kernel, with an empty cache; then as before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.library.cache_clear()
    yield
    library.library.cache_clear()


def evaluate_twice() -> None:
    """What uses the kernel where there is one, with both posteriors; here it must do without."""
    network = BatchedMLP(1, 1, 4, 1)
    one = torch.ones(1, 1)
    for kind in (NetworkPosterior, CollapsedNetworkPosterior):
        posterior = kind(network, one, one, network.scales(), one)
        value, gradient = posterior(torch.ones(1, posterior.num_parameters))
        assert posterior._compiled is None
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()


def test_without_a_compiler_torch_does_it_and_one_line_says_so(
    first_use: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.DEBUG):
        evaluate_twice()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no-such-compiler" in record.message
    assert library.SWITCH in record.message


def test_switched_off_it_is_silent(
    first_use: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(library.SWITCH, "0")
    with caplog.at_level(logging.WARNING):
        evaluate_twice()
    assert caplog.records == []


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
    # The tests of the widest vectors are of optimized code; here that would take long to compile.
    narrow = library.load([*library.find_compiler(), "-O1"], options)
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
