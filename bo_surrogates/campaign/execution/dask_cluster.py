"""Dask as executor: a scheduler and workers on any number of machines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from bo_surrogates.campaign.execution.resources import Resources
from bo_surrogates.errors import InputError, RunError

CONNECT_SECONDS = 20


@contextmanager
def dask_executor(scheduler: str | None, resources: Resources | None = None) -> Iterator[Executor]:
    """An executor on a running Dask cluster; closed with the block, the cluster is not.

    Args:
        scheduler: Address such as "tcp://10.0.0.7:8786", or the path of a scheduler file (.json).
        resources: Hints, as Dask's abstract resources CPU, GPU and MEMORY (bytes).

    Raises:
        InputError: Dask is not installed, no scheduler is named, or no worker has the resources.
        RunError: The scheduler cannot be reached.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "executor = 'dask' needs Dask: pip install 'bo-surrogates[distributed]'"
        ) from error
    if scheduler is None:
        raise InputError(
            "executor = 'dask' needs the address of a scheduler: start one with 'dask scheduler', "
            "workers with 'dask worker ADDRESS', and give scheduler = 'tcp://host:8786' "
            "(--scheduler)"
        )
    where = {"scheduler_file" if scheduler.endswith(".json") else "address": scheduler}
    try:
        client: Any = Client(**where, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise RunError(
            f"no Dask scheduler at {scheduler!r} ({type(error).__name__}: {error}); start one with "
            "'dask scheduler', or check the address"
        ) from error
    with client:
        needed = _dask_resources(resources or Resources())
        _check(client, needed)
        yield client.get_executor(pure=False, retries=0, resources=needed)


def _dask_resources(resources: Resources) -> dict[str, float]:
    named = {"CPU": resources.cpus, "GPU": resources.gpus, "MEMORY": resources.bytes}
    return {name: value for name, value in named.items() if value}


def _check(client: Any, needed: dict[str, float]) -> None:
    """Refuse what no worker has: Dask would wait for it without a word, for ever."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    for name, amount in needed.items():
        most = max((w.get("resources", {}).get(name, 0) for w in workers), default=amount)
        if most < amount:
            raise InputError(
                f"no worker of the Dask cluster offers {name} = {amount:g} (the most is "
                f"{most:g}); start workers with 'dask worker ADDRESS --resources "
                f'"{name}={amount:g}"\', or leave the hint out'
            )
