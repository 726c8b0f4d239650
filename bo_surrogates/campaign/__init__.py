"""Durable campaigns: ask, tell, run, resume."""
