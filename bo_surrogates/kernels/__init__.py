"""Kernels: GPyTorch `Kernel`s with finite gradients at coincident points."""
