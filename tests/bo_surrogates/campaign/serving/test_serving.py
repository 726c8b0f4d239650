"""One campaign for many workers: everything acknowledged is kept, once, whatever dies."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bo_surrogates import Campaign, CampaignSpec, Float, InputError, Objective, RunError, Space
from bo_surrogates.campaign.serving import client
from bo_surrogates.campaign.serving.client import RemoteCampaign
from bo_surrogates.campaign.serving.dispatcher import Dispatcher
from bo_surrogates.campaign.serving.server import CampaignServer
from bo_surrogates.cli import app

ROOT = Path(__file__).parents[4]
PATIENCE = 60.0  # seconds that something certain to happen is waited for
# All of the design, so that no test waits for a fit.
SPEC = CampaignSpec(
    name="shared",
    space=Space([Float("x", 0, 1), Float("y", 0, 1)]),
    objectives=(Objective("loss"),),
    budget=60,
    initial=60,
)


def loss(x, y):
    return (x - 0.3) ** 2 + y


@pytest.fixture
def campaign(tmp_path):
    with Campaign.create(SPEC, tmp_path / "c.db") as campaign:
        yield campaign


@pytest.fixture
def server(campaign):
    with CampaignServer(campaign) as server:
        server.start()
        yield server
        server.stop()


def in_threads(n, function):
    with ThreadPoolExecutor(n) as pool:
        return [f.result(PATIENCE) for f in [pool.submit(function, i) for i in range(n)]]


# ---- asking and telling --------------------------------------------------------------------------
def test_fifty_workers_tell_through_one_server_and_nothing_is_lost_or_doubled(server, campaign):
    def work(i):
        done = []
        RemoteCampaign(server.url, worker=f"w{i}").work(loss, on_trial=done.append)
        return [t.index for t in done]

    done = [index for indices in in_threads(50, work) for index in indices]
    assert sorted(done) == list(range(SPEC.budget))
    trials = campaign.trials
    assert [t.status for t in trials] == ["completed"] * SPEC.budget
    assert all(t.value("loss") == loss(**t.parameters) for t in trials)
    assert len({tuple(t.parameters.values()) for t in trials}) == SPEC.budget
    remote = RemoteCampaign(server.url)
    assert remote.trials == trials
    assert remote.ask() == []


def test_requests_that_wait_are_asked_for_together(campaign, monkeypatch):
    asked, dispatcher, ask = [], Dispatcher(campaign), campaign.ask

    def slow(n):
        asked.append(n)
        while len(asked) == 1 and len(dispatcher._queue) < 7:
            time.sleep(0.01)
        return ask(n)

    monkeypatch.setattr(campaign, "ask", slow)
    given = in_threads(8, lambda i: dispatcher.ask(2, f"r{i}", "w"))
    assert asked == [2, 14]
    assert Counter(t.index for trials in given for t in trials) == Counter(range(16))


def test_points_asked_ahead_are_handed_out_without_a_wait(campaign, monkeypatch):
    dispatcher = Dispatcher(campaign, ahead=3)
    assert len(dispatcher.ask(1, "a", "w")) == 1
    monkeypatch.setattr(campaign, "ask", None)
    assert [t.index for t in dispatcher.ask(3, "b", "w")] == [1, 2, 3]


def test_a_repeated_request_is_answered_as_the_first_time_even_by_another_server(campaign):
    first = Dispatcher(campaign).ask(2, "once", "w")
    again = Dispatcher(campaign)  # as after a restart: nothing is remembered but what is on disk
    assert again.ask(2, "once", "w") == first
    assert [t.index for t in again.ask(1, "other", "w")] == [2]
    told = again.tell(0, {"loss": [0.5, None]}, 1.0)
    assert again.tell(0, {"loss": 0.5}, 1.0) == told
    with pytest.raises(InputError, match="completed already"):
        again.tell(0, {"loss": 0.6}, 1.0)
    assert again.abandon(1, "broke", None) == again.abandon(1, "broke", None)
    with pytest.raises(InputError, match="abandoned already"):
        again.abandon(1, "burnt", None)


def test_trials_left_waiting_are_handed_out_before_new_ones(campaign):
    campaign.ask(2)
    assert [t.index for t in Dispatcher(campaign).ask(3, "r", "w")] == [0, 1, 2]


def test_the_trials_of_a_silent_worker_are_handed_out_again(campaign):
    dispatcher = Dispatcher(campaign, silence=0.2)
    (lost,) = dispatcher.ask(1, "a", "dies")
    (kept,) = dispatcher.ask(1, "b", "lives")
    assert dispatcher.more
    for _ in range(3):
        time.sleep(0.1)
        dispatcher.alive([kept.index])
    assert dispatcher.ask(1, "c", "new") == [lost]
    # The first answer counts, also if it is the one that was late.
    dispatcher.tell(lost.index, {"loss": 1.0}, None)
    with pytest.raises(InputError, match="completed already"):
        dispatcher.tell(lost.index, {"loss": 2.0}, None)


def test_a_worker_that_came_too_late_goes_on(server, campaign):
    remote = RemoteCampaign(server.url)
    told = []

    def slow(x, y):
        if not told:
            told.append(campaign.tell(0, {"loss": 7.0}))
        return loss(x, y)

    assert remote.work(slow, trials=2) == 2
    assert campaign.trials[0].value("loss") == 7.0
    assert campaign.trials[1].value("loss") == loss(**campaign.trials[1].parameters)


def test_many_failures_in_a_row_stop_the_campaign_and_a_success_starts_anew(server, campaign):
    remote = RemoteCampaign(server.url)
    box = iter([True, True, *[False] * 4, True, *[False] * 5])

    def shaky(x, y):
        if next(box):
            return 1.0
        raise ValueError("no power")

    with pytest.raises(RunError, match="the last 5 trials failed; mend the black box"):
        remote.work(shaky)
    assert [t.status for t in campaign.trials][-6:] == ["completed", *["abandoned"] * 5]
    assert "no power" in campaign.trials[-1].reason


def test_replicates_and_time_outs_of_the_campaign_hold_for_workers(tmp_path):
    spec = replace(SPEC, budget=2, initial=2, replicates=3)
    with Campaign.create(spec, tmp_path / "r.db") as campaign, CampaignServer(campaign) as server:
        server.start()
        values = iter([1.0, 2.0, 6.0, 0.0, 0.0, 0.0])
        RemoteCampaign(server.url).work(lambda x, y: next(values))
        first, second = (t.measurements["loss"] for t in campaign.trials)
        assert first.mean == 3.0
        assert first.sem == pytest.approx((7.0 / 3.0) ** 0.5)  # s^2 = (4 + 1 + 9) / 2
        assert (second.mean, second.sem) == (0.0, 0.0)
        server.stop()


# ---- the server dies -----------------------------------------------------------------------------
# Imports once, then forks a server at the port in each line that it reads.
SERVE = """
import os, signal, sys
import bo_surrogates.campaign.ax_bridge
from bo_surrogates import Campaign
from bo_surrogates.campaign.serving.server import CampaignServer
for line in sys.stdin:
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Campaign.open(sys.argv[1]) as campaign, CampaignServer(campaign, port=int(line)) as s:
            print(os.getpid(), s.url, flush=True)
            s.serve()
        os._exit(0)
    os.waitpid(pid, 0)
    print(flush=True)  # it is dead
"""


def test_a_server_killed_again_and_again_loses_nothing_and_its_workers_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "PAUSE", (0.05, 0.5))
    database = tmp_path / "c.db"
    Campaign.create(SPEC, database).close()

    parent = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(database)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def start(port):
        parent.stdin.write(f"{port}\n")
        parent.stdin.flush()
        pid, url = parent.stdout.readline().split()
        return int(pid), url

    def kill(pid):
        os.kill(pid, signal.SIGKILL)
        assert parent.stdout.readline() == "\n"

    acknowledged = {}
    halves = [threading.Semaphore(0) for _ in range(2)]

    def work(i):
        remote = RemoteCampaign(url, worker=f"w{i}", patience=PATIENCE)

        def note(trial):
            acknowledged.setdefault(trial.index, []).append(trial.value("loss"))
            for half in halves:
                half.release()

        return remote.work(lambda x, y: time.sleep(0.05) or loss(x, y), on_trial=note)

    serving, url = start(0)
    try:
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(work, i) for i in range(8)]
            for part, half in enumerate(halves):
                for _ in range(15 * (part + 1)):
                    assert half.acquire(timeout=PATIENCE)
                kill(serving)  # with requests under way
                serving, _ = start(int(url.rsplit(":", 1)[1]))
            done = sum(f.result(PATIENCE) for f in futures)
    finally:
        kill(serving)
        parent.communicate(timeout=PATIENCE)
    with Campaign.open(database, read_only=True) as campaign:
        trials = campaign.trials
    assert done == len(trials) == SPEC.budget
    # Each was given to one worker, acknowledged once, and is on disk as acknowledged.
    assert {i: [t.value("loss")] for i, t in enumerate(trials)} == acknowledged


def test_a_worker_without_a_server_waits_and_then_says_what_to_do():
    remote = RemoteCampaign("http://127.0.0.1:9", patience=0.3)
    with pytest.raises(RunError, match="gives no answer .*bo-surrogates serve"):
        remote.ask()


# ---- who may come, and with what -----------------------------------------------------------------
def post(url, path, data, **headers):
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize(
    ("path", "data", "status", "said"),
    [
        ("/ask", b"{", 400, "not valid JSON"),
        ("/ask", [1], 400, "a JSON object"),
        ("/ask", {"N": 1}, 400, "unknown key 'N'"),
        ("/ask", {"n": 0}, 400, "n must be an integer"),
        ("/ask", {"n": True}, 400, "n must be an integer"),
        ("/ask", {"n": 10**9}, 400, "n must be an integer"),
        ("/ask", {"request": ""}, 400, "request must be"),
        ("/ask", {"worker": "a\nb"}, 400, "worker must be"),
        ("/tell", {"trial": 0}, 400, "'result' is missing"),
        ("/tell", {"trial": 99, "result": {"loss": 1}}, 400, "no trial 99"),
        ("/tell", {"trial": "0", "result": {"loss": 1}}, 400, "index is an integer"),
        ("/tell", {"trial": 0, "result": {"lose": 1}}, 400, "did you mean 'loss'"),
        ("/tell", {"trial": 0, "result": {}}, 400, "'loss' is missing"),
        ("/tell", {"trial": 0, "result": 3}, 400, "maps metrics to values"),
        ("/tell", {"trial": 0, "result": {"loss": "low"}}, 400, "must be a number"),
        ("/tell", {"trial": 0, "result": {"loss": [1, -1]}}, 400, ">= 0"),
        ("/tell", b'{"trial": 0, "result": {"loss": NaN}}', 400, "finite"),
        ("/tell", b'{"trial": 0, "result": {"loss": 1e999}}', 400, "finite"),
        ("/tell", {"trial": 0, "result": {"loss": 1}, "seconds": -1}, 400, "seconds"),
        ("/abandon", {"trial": 0, "reason": " "}, 400, "a reason"),
        ("/abandon", {"trial": 0, "reason": 3}, 400, "a reason"),
        ("/alive", {"trials": 3}, 400, "a list"),
        ("/delete", {}, 404, "no POST /delete"),
    ],
)
def test_a_wrong_request_is_one_message_and_changes_nothing(
    server, campaign, path, data, status, said
):
    campaign.ask(1)
    before = campaign.trials
    code, answer = post(server.url, path, data)
    assert code == status
    assert said in answer["error"]
    assert campaign.trials == before


def test_only_those_who_know_the_token_are_let_in(campaign):
    with CampaignServer(campaign, token="a very secret word") as server:
        server.start()
        for token in (None, "a wrong word"):
            with pytest.raises(InputError, match="token"):
                RemoteCampaign(server.url, token=token).ask()
        assert campaign.trials == []
        assert len(RemoteCampaign(server.url, token="a very secret word").ask()) == 1
        server.stop()
    with pytest.raises(InputError, match="8 characters"):
        CampaignServer(campaign, token="short")
    with CampaignServer(campaign, host="0.0.0.0") as open_to_all:
        assert len(open_to_all.token) >= 20


def test_web_pages_in_a_browser_here_cannot_reach_a_server_without_a_token(server, campaign):
    assert post(server.url, "/ask", {}, **{"Content-Type": "text/plain"})[0] == 415
    assert post(server.url, "/ask", {}, Host="evil.example")[0] == 403
    assert post(server.url, "/ask", b"x", **{"Content-Length": str(10**9)})[0] == 413
    assert campaign.trials == []


def test_a_port_in_use_and_addresses_that_are_none_are_refused(server, campaign):
    with pytest.raises(RunError, match="cannot listen at .* choose another --port"):
        CampaignServer(campaign, port=int(server.url.rsplit(":", 1)[1]))
    for url in ("localhost:8700", "ftp://a", "http://", "http://a:b", "http://[::1"):
        with pytest.raises(InputError, match="not a server's address"):
            RemoteCampaign(url)


def test_the_command_serves_until_ctrl_c_and_workers_finish_the_campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(
        'budget = 4\ninitial = 4\n[[parameters]]\nname = "x"\ntype = "float"\nlow = 0\nhigh = 1\n'
        '[[objectives]]\nname = "loss"\ndirection = "minimize"\n'
    )
    main = "from bo_surrogates.cli import main; main()"
    serving = subprocess.Popen(
        [sys.executable, "-c", main, "serve", "plan.toml", "--port", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        url = re.search(r"http://\S+", serving.stdout.readline())[0]
        (tmp_path / "measure.py").write_text(
            "import json, sys\nprint(json.dumps({'loss': json.load(sys.stdin)['x']}))\n"
        )
        command = f"{sys.executable} measure.py"
        worked = CliRunner().invoke(app, ["work", url, "--command", command, "--workers", "2"])
        assert worked.exit_code == 0, worked.output
        assert "4 trial(s) done here" in worked.stdout
        serving.send_signal(signal.SIGINT)
        out, err = serving.communicate(timeout=PATIENCE)
    finally:
        serving.kill()
    assert serving.returncode == 0, err
    assert "stopped; 4 finished trial(s) are stored, 0 running" in out
    assert "Traceback" not in err
    with Campaign.open(tmp_path / "plan.db", read_only=True) as campaign:
        assert all(t.value("loss") == t.parameters["x"] for t in campaign.trials)
