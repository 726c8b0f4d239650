"""A campaign on a server, for workers: ask, tell, and a loop that does both.

    campaign = RemoteCampaign("http://localhost:8700")
    campaign.work(my_function)

Every request is repeated until it is answered: when the connection breaks, when the server is
killed and started again, a worker waits and goes on. A repeated request does nothing twice.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError, RunError

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Result
    from bo_surrogates.campaign.execution.runner import Outcome

ANSWER = 900.0  # seconds to wait for an answer; a fit may take minutes, and others' may be first
PAUSE = 0.1, 10.0  # seconds between repetitions: the first, and the longest
POLL = 5.0  # seconds between asks when there is nothing to do yet


class RemoteCampaign:
    """A campaign that a server writes (`bo-surrogates serve`).

    Args:
        url: Of the server.
        token: What the server wants its clients to know; None: nothing.
        patience: Seconds for which an unanswered request is repeated, >= 0.
        worker: What this worker is called, for people; None: its machine and process.

    Raises:
        InputError: A bad argument.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        patience: float = 600.0,
        worker: str | None = None,
    ) -> None:
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise InputError(
                f"{url!r} is not a server's address; expected one such as http://localhost:8700"
            )
        if not patience >= 0:
            raise InputError(f"patience must be a number of seconds >= 0, got {patience!r}")
        self.url = url.rstrip("/")
        self.patience = patience
        self.worker = worker or f"{socket.gethostname()}:{os.getpid()}"
        self._token = token
        self._spec: CampaignSpec | None = None

    def __repr__(self) -> str:
        return f"RemoteCampaign({self.url!r})"

    # ---- requests --------------------------------------------------------------------------------
    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """An answer, however often it must be asked for.

        Raises:
            InputError: The server says that the request is wrong.
            RunError: It says that it cannot be done, or gives no answer for `patience` seconds.
        """
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        deadline = time.monotonic() + self.patience
        pause = PAUSE[0]
        while True:
            try:
                return self._once(method, path, data)
            except InputError:
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = error
            if time.monotonic() >= deadline:
                raise RunError(
                    f"the campaign's server at {self.url} gives no answer ({problem}); start it "
                    "with 'bo-surrogates serve', or check the address"
                ) from problem
            # Many workers lose the server at once; they should not all come back at once.
            time.sleep(min(pause * random.uniform(0.5, 1.5), PAUSE[1]))
            pause *= 2

    def _once(self, method: str, path: str, data: bytes | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            try:
                text = json.loads(text)["error"]
            except (ValueError, TypeError, KeyError):
                raise RunError(
                    f"{self.url} answers {error.code} and is not a campaign's server"
                ) from None
            if error.code == 503:
                raise ConnectionError(text) from None
            if error.code == 409:
                raise RunError(text) from None
            if error.code >= 500:
                raise RunError(f"the campaign's server failed: {text}") from None
            raise InputError(text) from None

    # ---- looking ---------------------------------------------------------------------------------
    @property
    def spec(self) -> CampaignSpec:
        """What is optimized, and how."""
        if self._spec is None:
            self._spec = CampaignSpec.from_dict(self.status()["spec"])
        return self._spec

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that each result must hold."""
        return self.spec.metrics

    @property
    def trials(self) -> list[Trial]:
        """All trials, by index."""
        return [Trial.from_dict(t) for t in self._call("GET", "/trials")["trials"]]

    def status(self) -> dict[str, Any]:
        """The campaign's name, specification, and numbers of trials by status."""
        answer: dict[str, Any] = self._call("GET", "/status")
        if "spec" not in answer:
            raise RunError(f"{self.url} is not a campaign's server")
        return answer

    # ---- ask and tell ----------------------------------------------------------------------------
    def ask(self, n: int = 1) -> list[Trial]:
        """See `Campaign.ask`; fewer trials, or none, where the budget is spent."""
        return self._ask(n)[0]

    def _ask(self, n: int) -> tuple[list[Trial], bool]:
        """Trials, and whether there may be some later where there are none now."""
        request = {"n": n, "request": uuid.uuid4().hex, "worker": self.worker}
        answer = self._call("POST", "/ask", request)
        return [Trial.from_dict(t) for t in answer["trials"]], answer["more"]

    def tell(self, index: int, result: Result, *, seconds: float | None = None) -> Trial:
        """See `Campaign.tell`. When this returns, the result is on the server's disk."""
        plain = _plain(index, result)
        body = {"trial": index, "result": plain, "seconds": seconds}
        return Trial.from_dict(self._call("POST", "/tell", body)["trial"])

    def abandon(self, index: int, reason: str, *, seconds: float | None = None) -> Trial:
        """See `Campaign.abandon`."""
        body = {"trial": index, "reason": reason, "seconds": seconds}
        return Trial.from_dict(self._call("POST", "/abandon", body)["trial"])

    # ---- working ---------------------------------------------------------------------------------
    def work(
        self,
        black_box: Callable[..., Any] | Any | None = None,
        *,
        workers: int = 1,
        trials: int | None = None,
        on_trial: Callable[[Trial], None] | None = None,
        resolve_problem: Callable[..., Any] | None = None,
    ) -> int:
        """Ask, evaluate and tell until the campaign's budget is spent.

        Evaluations go by the campaign's time-out, seeds, threads and replicates, as in a run.

        Args:
            black_box: See `Campaign.run`; None: the campaign's own.
            workers: Evaluations at a time, each in a process of its own, >= 1.
            trials: Stop after this many; None: when there are no more.
            on_trial: Told of each finished trial.
            resolve_problem: See `Campaign.run`.

        Returns:
            The number of trials that were finished here.

        Raises:
            InputError: A bad argument, or no black box that fits.
            RunError: The server gives no answer, or has nothing to propose.
        """
        from bo_surrogates.campaign.black_box import make_black_box
        from bo_surrogates.campaign.execution.executors import open_runner

        spec = self.spec
        source = black_box if black_box is not None else spec.black_box
        if source is None:
            raise InputError(f"campaign {spec.name!r} has no black box of its own; give one")
        if trials is not None and (isinstance(trials, bool) or not trials >= 1):
            raise InputError(f"trials must be an integer >= 1, got {trials!r}")
        box = make_black_box(
            source, space=spec.space, metrics=spec.metrics, resolve_problem=resolve_problem
        )
        silence = self.status()["silence"]
        with (
            open_runner(
                None, box, workers=workers, timeout=spec.timeout, threads=spec.threads,
                resources=spec.resources,
            ) as runner,
            self._signs_of_life(silence) as under_way,
        ):  # fmt: skip
            work = _Work(self, runner, under_way, on_trial)
            while True:
                room = workers - len(under_way)
                if trials is not None:
                    room = min(room, trials - work.finished - len(under_way))
                more = False
                if room > 0:
                    asked, more = self._ask(room)
                    for trial in asked:
                        work.begin(trial)
                if not under_way:
                    if not more:
                        return work.finished
                    time.sleep(POLL)
                    continue
                for outcome in runner.wait():
                    work.take(outcome)

    @contextmanager
    def _signs_of_life(self, silence: float | None) -> Iterator[dict[int, Trial]]:
        """The trials under way; the server is told of them often enough."""
        under_way: dict[int, Trial] = {}
        if silence is None:
            yield under_way
            return
        over = threading.Event()

        def tell_often() -> None:
            while not over.wait(silence / 4):
                with suppress(Exception):  # the worker's own requests say what is wrong
                    body = json.dumps({"trials": list(under_way)}).encode()
                    self._once("POST", "/alive", body)

        threading.Thread(target=tell_often, name="signs of life", daemon=True).start()
        try:
            yield under_way
        finally:
            over.set()


class _Work:
    """The trials that a worker evaluates, and their replicates."""

    def __init__(
        self,
        campaign: RemoteCampaign,
        runner: Any,
        under_way: dict[int, Trial],
        on_trial: Callable[[Trial], None] | None,
    ) -> None:
        self.campaign = campaign
        self.runner = runner
        self.under_way = under_way
        self.report = on_trial or (lambda trial: None)
        self.finished = 0
        self._measured: dict[int, dict[int, Mapping[str, Measurement]]] = {}
        self._seconds: dict[int, float] = {}

    def begin(self, trial: Trial) -> None:
        """Evaluate a trial."""
        from bo_surrogates.campaign.execution.evaluation import Task
        from bo_surrogates.campaign.running import evaluation_seed

        spec = self.campaign.spec
        self.under_way[trial.index] = trial
        self._measured[trial.index], self._seconds[trial.index] = {}, 0.0
        for repeat in range(spec.replicates):
            seed = evaluation_seed(spec.seed, trial.index, repeat)
            self.runner.submit(Task(trial.index, trial.parameters, seed, repeat, trial.attempt))

    def take(self, outcome: Outcome) -> None:
        """Tell what became of a trial, when all its replicates are measured or one failed."""
        index, spec = outcome.index, self.campaign.spec
        if index not in self.under_way:
            return  # another replicate has failed
        self._seconds[index] += outcome.seconds
        if outcome.measurements is None:
            self._conclude(index, outcome.reason or "unknown")
            return
        measured = self._measured[index]
        measured[outcome.task.repeat] = outcome.measurements
        if len(measured) < spec.replicates:
            return
        result: Mapping[str, Measurement] = outcome.measurements
        if spec.replicates > 1:
            result = {
                m: Measurement.from_replicates([measured[r][m].mean for r in sorted(measured)])
                for m in spec.metrics
            }
        self._conclude(index, result)

    def _conclude(self, index: int, result: Mapping[str, Measurement] | str) -> None:
        seconds = self._seconds.pop(index)
        try:
            if isinstance(result, str):
                trial = self.campaign.abandon(index, result, seconds=seconds)
            else:
                trial = self.campaign.tell(index, result, seconds=seconds)
        except InputError:
            # Another worker, given the trial after a long silence of this one, was faster.
            told = self.campaign.trials[index]
            if told.status == "running":
                raise
            trial = told
        del self.under_way[index], self._measured[index]
        self.finished += 1
        self.report(trial)


def _plain(index: int, result: Result) -> dict[str, Any]:
    """A result as JSON has it; what cannot be a result is refused here."""
    if not isinstance(result, Mapping):
        raise InputError(f"trial {index}: a result maps metrics to values, got {result!r}")
    plain: dict[str, Any] = {}
    for metric, value in result.items():
        numbers = (value.mean, value.sem) if isinstance(value, Measurement) else value
        try:
            parts = [numbers] if isinstance(numbers, int | float) else list(numbers)
            measurement = Measurement(*parts)
        except (InputError, TypeError) as error:
            raise InputError(f"trial {index}, metric {metric!r}: {error}") from None
        plain[str(metric)] = [measurement.mean, measurement.sem]
    return plain
