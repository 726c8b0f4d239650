"""Posteriors that BoTorch lacks; importing a module registers its sampler."""
