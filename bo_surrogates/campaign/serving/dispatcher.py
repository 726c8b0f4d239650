"""Who gets which trial: a campaign's asks and tells, from any number of threads at once.

Asking takes seconds, and one ask waits for another; what was asked for meanwhile is asked for
together, as one batch. Telling waits for nothing but the disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bo_surrogates.campaign.trial import Trial
from bo_surrogates.errors import BoSurrogatesError, InputError, RunError, SpaceExhausted

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign

MAX_ASKED = 1000  # trials of one request


class ServerStoppingError(RunError):
    """A request came too late; it may be repeated."""


@dataclass(eq=False)
class _Want:
    """A request for trials, and its answer."""

    n: int
    request: str
    worker: str
    trials: list[Trial] | None = None
    error: BoSurrogatesError | None = None


class Dispatcher:
    """Hands out a campaign's trials and takes their results. Thread-safe.

    Args:
        campaign: Open for writing; nothing else may write it meanwhile.
        ahead: Points asked beyond those requested, so that the next requests need not wait; they
            are chosen without the results that come in between.
        silence: Seconds after which the trials of a worker that sent no sign of life are handed
            out again; None: never.

    Raises:
        InputError: A number out of its range.
    """

    def __init__(self, campaign: Campaign, *, ahead: int = 0, silence: float | None = None) -> None:
        if isinstance(ahead, bool) or not isinstance(ahead, int) or not 0 <= ahead <= MAX_ASKED:
            raise InputError(f"ahead must be an integer in [0, {MAX_ASKED}], got {ahead!r}")
        if silence is not None and not silence > 0:
            raise InputError(f"silence must be a number of seconds > 0, got {silence!r}")
        self.campaign = campaign
        self.ahead = ahead
        self.silence = silence
        self.failures = 0  # trials in a row, since this process started
        self._asking = threading.Lock()
        self._telling = threading.Lock()
        self._queueing = threading.Lock()
        self._queue: list[_Want] = []
        self._heard: dict[int, float] = {}  # last sign of life of those who have a trial
        self._started = time.monotonic()
        self._closed = False

    def close(self) -> None:
        """Take no more requests, and wait for those under way."""
        self._closed = True
        with self._asking, self._telling:
            pass

    def _check_open(self) -> None:
        if self._closed:
            raise ServerStoppingError(
                "the server is being stopped; it goes on when it is started again"
            )

    # ---- asking ----------------------------------------------------------------------------------
    def ask(self, n: int, request: str, worker: str) -> list[Trial]:
        """Trials to evaluate; fewer than n, or none, where the budget is spent.

        Args:
            n: How many, in [1, `MAX_ASKED`].
            request: Whatever names this request; repeated, it is given the same trials.
            worker: Who asks, for people.

        Raises:
            InputError: A bad number or name.
            RunError: Nothing is left to propose, a fit failed, or too many trials in a row did.
        """
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_ASKED:
            raise InputError(f"n must be an integer in [1, {MAX_ASKED}], got {n!r}")
        for name, text in (("request", request), ("worker", worker)):
            if not isinstance(text, str) or not 1 <= len(text) <= 200 or not text.isprintable():
                raise InputError(f"{name} must be printable text of 1 to 200 characters")
        want = _Want(n, request, worker)
        with self._queueing:
            self._queue.append(want)
        with self._asking:
            if want.trials is None and want.error is None:
                self._check_open()
                with self._queueing:
                    wants, self._queue = self._queue, []
                self._answer(wants)
        if want.error is not None:
            raise want.error
        return want.trials or []

    def _answer(self, wants: Sequence[_Want]) -> None:
        """Give each request its trials: those it was given before, waiting ones, new ones."""
        try:
            assigned = self._assigned()
            given: dict[str, list[int]] = {}
            for index, request in assigned.items():
                given.setdefault(request, []).append(index)
            new: list[_Want] = []
            by_index = {t.index: t for t in self.campaign.trials}
            for want in wants:
                if want.request in given:
                    want.trials = [by_index[i] for i in given[want.request]]
                elif want.request not in [w.request for w in new]:
                    new.append(want)
            pool = [t for t in by_index.values() if t.status == "running"]
            pool = [t for t in pool if t.index not in assigned]
            pool += self._propose(sum(w.n for w in new) - len(pool), pool)
            for want in new:
                want.trials, pool = pool[: want.n], pool[want.n :]
                self._assign(want)
            for want in wants:  # the same request twice in one queue
                if want.trials is None:
                    want.trials = next(w.trials for w in new if w.request == want.request)
        except BoSurrogatesError as error:
            for want in wants:
                if want.trials is None:
                    want.error = error

    def _propose(self, missing: int, pool: Sequence[Trial]) -> list[Trial]:
        if missing <= 0:
            return []
        spec = self.campaign.spec
        if self.failures >= spec.max_consecutive_failures:
            raise RunError(
                f"the last {self.failures} trials failed; mend the black box, then start the "
                "server again"
            )
        wanted = min(missing + self.ahead, self.campaign.left())
        if wanted <= 0:
            return []
        try:
            return self.campaign.ask(wanted)
        except SpaceExhausted:
            return []  # every point is measured, or being measured: an end, too

    def _assigned(self) -> dict[int, str]:
        """The request that each running trial was given to; overdue ones are taken back."""
        assigned = self.campaign.journal.assignments(self.campaign._id)
        if self.silence is not None:
            now = time.monotonic()
            for index in list(assigned):
                if now - self._heard.get(index, self._started) > self.silence:
                    self.campaign.journal.release(self.campaign._id, [index])
                    del assigned[index]
        return assigned

    def _assign(self, want: _Want) -> None:
        indices = [t.index for t in want.trials or []]
        now = time.monotonic()
        self._heard |= dict.fromkeys(indices, now)
        if indices:
            self.campaign.journal.assign(self.campaign._id, indices, want.request, want.worker)

    def alive(self, indices: Sequence[int]) -> None:
        """A worker says that it is still evaluating these trials."""
        now = time.monotonic()
        for index in indices:
            if isinstance(index, int) and index in self._heard:
                self._heard[index] = now

    @property
    def more(self) -> bool:
        """Whether a worker that was given nothing may be given something later."""
        if self.silence is None:
            return False
        return any(t.status == "running" for t in self.campaign.trials)

    # ---- telling ---------------------------------------------------------------------------------
    def tell(self, index: int, result: Mapping[str, Any], seconds: float | None) -> Trial:
        """Record a result; the same result again is no mistake.

        Raises:
            InputError: See `Campaign.tell`.
        """
        with self._telling:
            self._check_open()
            measurements = self.campaign.check_result(index, result)
            recorded = self._recorded(index)
            if recorded is not None and recorded.measurements == measurements:
                return recorded
            trial = self.campaign.tell(index, measurements, seconds=seconds)
            self.failures = 0
            self._heard.pop(index, None)
            return trial

    def abandon(self, index: int, reason: str, seconds: float | None) -> Trial:
        """Record that there is no result; the same reason again is no mistake.

        Raises:
            InputError: See `Campaign.abandon`.
        """
        with self._telling:
            self._check_open()
            recorded = self._recorded(index)
            if recorded is not None and recorded.reason == reason:
                return recorded
            trial = self.campaign.abandon(index, reason, seconds=seconds)
            self.failures += 1
            self._heard.pop(index, None)
            return trial

    def _recorded(self, index: int) -> Trial | None:
        """The trial, if it is finished."""
        found = self.campaign.journal.trials(self.campaign._id, index)
        return found[0] if found and found[0].status != "running" else None
