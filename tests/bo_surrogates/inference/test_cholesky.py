"""Factors of singular matrices, and the record of what was added to them."""

from __future__ import annotations

import warnings

import pytest
import torch
from linear_operator.operators import to_linear_operator
from linear_operator.utils.cholesky import psd_safe_cholesky as reference
from linear_operator.utils.errors import NanError, NotPSDError
from linear_operator.utils.warnings import NumericalWarning

from bo_surrogates.inference.cholesky import psd_safe_cholesky, recorded_jitter

EYE = torch.eye(3, dtype=torch.float64)
SINGULAR = torch.ones(3, 3, dtype=torch.float64) - 3e-7 * EYE  # an eigenvalue of -3e-7, twice


def test_a_positive_definite_matrix_is_left_as_it_is() -> None:
    A = SINGULAR + EYE
    with recorded_jitter() as jitter:
        L = psd_safe_cholesky(A)
    torch.testing.assert_close(L, torch.linalg.cholesky(A), rtol=0, atol=0)
    assert (jitter.largest, jitter.factorizations) == (0.0, 1)


def test_jitter_is_the_least_of_the_steps_that_serves_and_recorded() -> None:
    with recorded_jitter() as outer, recorded_jitter() as inner:
        L = psd_safe_cholesky(SINGULAR)
    torch.testing.assert_close(L @ L.mT, SINGULAR + 1e-6 * EYE, rtol=0, atol=1e-12)
    assert inner.largest == outer.largest == pytest.approx(1e-6)


def test_it_is_that_of_gpytorch_for_unit_variances() -> None:
    A = torch.stack([SINGULAR, SINGULAR + EYE])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        expected = reference(A)
    torch.testing.assert_close(psd_safe_cholesky(A), expected, rtol=0, atol=1e-9)


def test_large_variances_get_more() -> None:
    with recorded_jitter() as jitter:
        L = psd_safe_cholesky(1e12 * SINGULAR)
    torch.testing.assert_close(L @ L.mT, 1e12 * (SINGULAR + 1e-6 * EYE), rtol=1e-9, atol=0)
    assert jitter.largest == pytest.approx(1e-6)


def test_a_covariance_of_nothing_but_rounding_has_a_factor() -> None:
    assert torch.isfinite(psd_safe_cholesky(-1e-16 * EYE)).all()


def test_gpytorchs_own_jitter_is_recorded_and_other_warnings_are_passed_on() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with recorded_jitter() as jitter:
            to_linear_operator(SINGULAR).cholesky()
            warnings.warn("something else", UserWarning, stacklevel=1)
    assert jitter.largest == pytest.approx(1e-6)
    assert [str(w.message) for w in caught] == ["something else"]


def test_the_gradient_is_that_of_the_matrix_with_its_jitter() -> None:
    A = SINGULAR.clone().requires_grad_()
    (found,) = torch.autograd.grad(psd_safe_cholesky(A).log_softmax(-1).sum(), A)
    B = (SINGULAR + 1e-6 * EYE).requires_grad_()
    (expected,) = torch.autograd.grad(torch.linalg.cholesky(B).log_softmax(-1).sum(), B)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_what_cannot_be_factorized_is_refused() -> None:
    with pytest.raises(NotPSDError, match=r"\(3, 3\) is not positive definite, nor with jitter"):
        psd_safe_cholesky(-EYE)
    with pytest.raises(NanError, match="9 elements that are not finite"):
        psd_safe_cholesky(SINGULAR * torch.nan)
