"""A black box that has torch loaded before it is called, and little else."""

import torch


def count_threads(x, kind):
    """How many threads torch would use."""
    return float(torch.get_num_threads())
