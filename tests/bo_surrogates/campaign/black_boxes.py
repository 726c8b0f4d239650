"""A black box for worker processes, which import this module and nothing heavy with it."""


def loss(x, kind):
    """Best at x = 0.3 with kind "v"."""
    return (x - 0.3) ** 2 + (kind == "u")
