"""kill -9 at random moments of running campaigns: what was acknowledged must be there, once, and
the campaign must end as an uninterrupted one does.

    python -m benchmarks.crashes                      # 200 kills over three ways to run
    python -m benchmarks.crashes --kills 4 --modes in-process processes --database postgresql

A campaign (batches of two, one trial in five fails) is started in a process that is killed after
a random time; what it had acknowledged is compared with the journal, which must still be readable
and writable at once; then it is resumed in another process that is killed, and so on. When the
campaign has ended, all its trials are compared with those of an uninterrupted one, and the next is
started. The processes are forked from one that has imported everything, so that the moments fall
into the campaign, not into imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Nothing heavy here: worker processes import this module to find the black box.
if TYPE_CHECKING:
    from bo_surrogates.campaign.spec import CampaignSpec
    from bo_surrogates.campaign.trial import Trial

MODES = ("in-process", "processes", "dask")
BUDGET = 12


def black_box(x: float, kind: str) -> float:
    """A valley; a fifth of it cannot be measured."""
    time.sleep(0.02)
    if 0.7 < x < 0.9:
        raise ValueError("out of reach")
    return (x - 0.3) ** 2 + (0.5 if kind == "u" else 0.0)


def specification() -> CampaignSpec:
    """The campaign that is killed again and again."""
    from bo_surrogates.acquisition.config import AcquisitionConfig
    from bo_surrogates.campaign.spec import CampaignSpec
    from bo_surrogates.objective import Objective
    from bo_surrogates.space import Choice, Float, Space

    return CampaignSpec(
        name="killed",
        space=Space([Float("x", 0.0, 1.0), Choice("kind", ("u", "v"))]),
        objectives=(Objective("y"),),
        budget=BUDGET,
        initial=6,
        batch_size=2,
        seed=7,
        acquisition=AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20),
    )


def outcome(trial: Trial) -> list[Any]:
    """What must be the same however often the campaign was killed."""
    values = {metric: m.mean for metric, m in trial.measurements.items()}
    reason = (trial.reason or "").partition(" (attempt")[0]
    return [trial.index, dict(trial.parameters), trial.status, values, reason]


def advance(database: str, mode: str, scheduler: str | None, say: Callable[[str], None]) -> None:
    """Start or resume the campaign and run it to its end; say what has been acknowledged."""
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.running import Event
    from bo_surrogates.campaign.storage import Journal, NoDatabaseError

    try:
        started = bool(Journal(database, read_only=True).campaigns())
    except NoDatabaseError:
        started = False
    campaign = Campaign.open(database) if started else Campaign.create(specification(), database)
    say("open")

    def report(event: Event) -> None:
        if event.trial is not None and event.kind in ("completed", "abandoned"):
            say(json.dumps(outcome(event.trial)))

    workers = 1 if mode == "in-process" else 2
    with campaign:
        campaign.run(
            black_box, workers=workers, executor=mode, scheduler=scheduler, on_event=report
        )


@dataclass
class Crashes:
    """What came of killing campaigns that run in one way."""

    mode: str
    kills: int = 0
    campaigns: int = 0
    acknowledged: int = 0  # results, in killed processes
    midway: int = 0  # kills between a campaign's first and last result

    def __str__(self) -> str:
        return (
            f"{self.mode}: {self.kills} kills ({self.midway} between the first and the last "
            f"result) in {self.campaigns} campaigns; {self.acknowledged} results acknowledged "
            "before a kill, none lost, none twice, all campaigns ended as the uninterrupted one"
        )


class LostResultError(Exception):
    """A campaign did not survive."""


def crash(
    mode: str, kills: int, seed: int, new_database: Callable[[], str], scheduler: str | None
) -> Crashes:
    """Kill campaigns until that has happened so often.

    Raises:
        LostResultError: One lost a result, has one twice, or ended otherwise.
    """
    draw = random.Random(seed)
    database = new_database()
    start = time.monotonic()
    if _run(database, mode, scheduler, None)[0] != 0:
        raise LostResultError("the uninterrupted campaign failed")
    whole = time.monotonic() - start
    expected = _stored(database)
    if len(expected) != BUDGET:
        raise LostResultError("the uninterrupted campaign has not spent its budget")
    crashes = Crashes(mode)
    while crashes.kills < kills:
        database = new_database()
        known: dict[int, Any] = {}
        while True:
            moment = draw.uniform(0.0, 0.7 * whole) if crashes.kills < kills else None
            code, said = _run(database, mode, scheduler, moment)
            known |= {one[0]: one for one in said}
            stored = {one[0]: one for one in _stored(database)}
            for index, one in known.items():
                if stored.get(index) != one:
                    raise LostResultError(f"{one} was acknowledged; found {stored.get(index)}")
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise LostResultError(f"a resumed campaign failed with exit code {code}")
            crashes.kills += 1
            crashes.acknowledged += len(said)
            crashes.midway += 0 < sum(one[2] != "running" for one in stored.values()) < BUDGET
        crashes.campaigns += 1
        if list(stored.values()) != expected:
            raise LostResultError(f"ended with {list(stored.values())}, expected {expected}")
        print(f"{mode}: {crashes.kills} of {kills} kills", file=sys.stderr, flush=True)
    return crashes


def _stored(database: str) -> list[list[Any]]:
    """All trials of the campaign, as a reader finds them; none if it was not created yet."""
    from bo_surrogates.campaign.storage import Journal, NoDatabaseError

    try:
        journal = Journal(database, read_only=True)
    except NoDatabaseError:
        return []
    try:
        if not journal.campaigns():
            return []
        trials = journal.trials(journal.find_campaign(None)[0])
        # As JSON has them, like what was said.
        return json.loads(json.dumps([outcome(t) for t in trials]))
    finally:
        journal.close()


def _run(
    database: str, mode: str, scheduler: str | None, moment: float | None
) -> tuple[int, list[Any]]:
    """Advance the campaign in a forked process, killed after some seconds; exit code, results."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(ours)
            _advance_patiently(database, mode, scheduler, theirs)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(theirs)
    said, deadline = b"", None
    while True:
        wait = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        if not select.select([ours], [], [], wait)[0]:
            os.kill(child, signal.SIGKILL)
            deadline = None
            continue
        part = os.read(ours, 65536)
        if not part:
            break
        said += part
        if deadline is None and moment is not None:
            deadline, moment = (
                time.monotonic() + moment,
                None,
            )  # counted from the campaign's opening
    os.close(ours)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = said.decode().split("\n")[:-1]  # the last is empty, or was cut off
    return code, [json.loads(line) for line in lines if line != "open"]


def _advance_patiently(database: str, mode: str, scheduler: str | None, pipe: int) -> None:
    """As a user would: PostgreSQL may need a moment to notice that the last process is gone."""
    import traceback

    from bo_surrogates.errors import RunError

    def say(text: str) -> None:
        os.write(pipe, f"{text}\n".encode())

    for remaining in range(200, -1, -1):
        try:
            advance(database, mode, scheduler, say)
            return
        except RunError as error:
            if not remaining or "is being written by" not in str(error):
                traceback.print_exc()
                raise
            time.sleep(0.05)
        except Exception:
            traceback.print_exc()
            raise


@contextlib.contextmanager
def dask_cluster() -> Iterator[str]:
    """The address of a scheduler with two worker processes, which outlive killed campaigns."""
    script = (
        "import sys\nfrom distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as c:\n"
        "        print(c.scheduler_address, flush=True)\n        sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if process.stdout is None:
            raise RuntimeError("no cluster")
        yield process.stdout.readline().strip()
    finally:
        process.communicate("")


def main() -> None:
    """Kill, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    import torch

    from benchmarks.postgresql_server import PostgreSQLServer

    torch.set_num_threads(1)
    import bo_surrogates.campaign.ax_bridge  # noqa: F401 - before the forks

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = (
            stack.enter_context(PostgreSQLServer()) if options.database == "postgresql" else None
        )
        count = 0

        def new_database() -> str:
            nonlocal count
            count += 1
            return server.create(f"c{count}") if server else str(folder / f"c{count}.db")

        share, rest = divmod(options.kills, len(options.modes))
        for number, mode in enumerate(options.modes):
            scheduler = stack.enter_context(dask_cluster()) if mode == "dask" else None
            kills = share + (number < rest)
            print(crash(mode, kills, options.seed + number, new_database, scheduler), flush=True)


if __name__ == "__main__":
    main()
