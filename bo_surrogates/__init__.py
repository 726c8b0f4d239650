"""Bayesian optimization on a registry of uncertainty-aware surrogates."""

__version__ = "0.1.0"
