"""Inference engines, without knowledge of networks or of optimization loops."""
