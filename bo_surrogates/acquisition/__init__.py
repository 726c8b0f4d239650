"""Acquisition functions: which one, and how it is maximized."""
