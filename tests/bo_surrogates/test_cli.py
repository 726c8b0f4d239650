"""The command line: what it prints where, its exit codes, and that no mistake costs a result."""

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bo_surrogates
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.cli import app
from bo_surrogates.cli.asking import parse_results
from bo_surrogates.cli.display import make_display
from bo_surrogates.errors import InputError
from problems import PROBLEMS

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0  # seconds that something certain to happen is waited for, on a busy machine

LAB = """
import os, time
from pathlib import Path

def measure(x, y, trial_index):
    print("a word from the black box")
    if trial_index == 4 and not Path("go").exists():
        Path("waiting").touch()
        time.sleep(600)
    return (x - 0.3) ** 2 + y

def fails(x, y): raise ValueError("no power")
def hangs(x, y): time.sleep(600)
def nan(x, y): return float("nan")
def infinite(x, y): return float("inf")
def text(x, y): return "low"
def dies(x, y): os._exit(7)
"""
PARAMETERS = """
[[parameters]]
name = "x"
type = "float"
low = 0
high = 1

[[parameters]]
name = "y"
type = "float"
low = 0
high = 1
unit = "min"
"""
LOSS = '\n[[objectives]]\nname = "loss"\ndirection = "minimize"\n'
DESIGN = 'budget = 3\ninitial = 3\npython = "lab:measure"\n' + PARAMETERS + LOSS
TWO = (
    DESIGN.replace('"lab:measure"', '"lab:both"')
    + 'reference = 2.0\n[[objectives]]\nname = "gain"\ndirection = "maximize"\nreference = -1.0\n'
)
BY_HAND = DESIGN.replace('python = "lab:measure"', 'metrics = ["cost"]\nconstraints=["cost <= 3"]')


def cli(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A user's folder, current, with a module of black boxes; writes campaign files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "lab.py").write_text(LAB + "\ndef both(x, y): return {'loss': x, 'gain': y}\n")
    (tmp_path / "go").touch()

    def write(text, name="plan.toml"):
        (tmp_path / name).write_text(text)
        return name

    sys.modules.pop("lab", None)
    yield write
    sys.modules.pop("lab", None)


def recorded(database="plan.db"):
    """All that a database holds of campaigns and results."""
    with sqlite3.connect(database) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("trial", "measurement")
        ]


def failed_clearly(result, code, *said):
    """One message on standard error, the exit code, no traceback, nothing on standard output."""
    assert result.exit_code == code, result.output
    message = " ".join(result.stderr.split())
    assert message.startswith("Error: ") or "Usage:" in message
    assert "Traceback" not in result.stderr
    assert sum(line.startswith("Error:") for line in result.stderr.splitlines()) == 1
    for words in said:
        assert words in message, message
    return message


# ---- help and lists ------------------------------------------------------------------------------
def test_help_names_every_command_and_version_is_the_packages():
    help_text = cli("--help").stdout
    for command in ("list", "run", "resume", "status", "best", "ask", "tell"):
        assert re.search(rf"^\W+{command} ", help_text, re.MULTILINE)
        own = cli(command, "--help")
        assert own.exit_code == 0
        assert "--json" in own.stdout
    assert cli("--version").stdout == f"bo-surrogates {bo_surrogates.__version__}\n"


@pytest.mark.parametrize("what", ["surrogates", "problems"])
def test_lists_hold_every_registered_entry(what):
    from bo_surrogates.surrogates import SURROGATES
    from problems import PROBLEMS

    names = list({"surrogates": SURROGATES, "problems": PROBLEMS}[what])
    assert [row["name"] for row in json.loads(cli("list", what, "--json").stdout)] == names
    table = cli("list", what).stdout
    assert all(name in table for name in names)


def test_commands_that_only_look_import_neither_torch_nor_ax(lab):
    cli("run", lab(DESIGN))
    program = """
import sys
from typer.testing import CliRunner
from bo_surrogates.cli import app
for arguments in (["--help"], ["status", "plan.db"], ["best", "plan.db"]):
    assert CliRunner().invoke(app, arguments).exit_code == 0
    print(arguments[0], *(m for m in ("torch", "botorch", "ax", "pandas") if m in sys.modules))
"""
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert out.split() == ["--help", "status", "best"]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "rum",
        "list",
        "list models",
        "run",
        "run a.toml --job 2",
        "run a.toml --workers 0",
        "ask a.toml --n 0",
        "tell a.toml first loss=1",
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    result = cli(*arguments.split())
    assert result.exit_code == 2
    assert "Traceback" not in result.output


# ---- running -------------------------------------------------------------------------------------
def test_a_run_is_quiet_without_a_terminal_and_sums_up(lab):
    result = cli("run", lab(DESIGN))
    assert result.exit_code == 0, result.output
    assert "3 of 3 trials done" in result.stdout
    assert "plan.db" in result.stdout
    assert "a word" not in result.stdout
    assert not re.search(r"^trial \d", result.stdout, re.MULTILINE)
    assert len(recorded()[1]) == 3


def test_a_verbose_run_prints_a_line_a_trial(lab):
    result = cli("run", lab(DESIGN), "--verbose")
    lines = [line for line in result.stdout.splitlines() if re.match(r"trial \d \(sobol\): ", line)]
    assert len(lines) == 3


def test_a_json_run_prints_an_event_a_line_and_nothing_else(lab):
    result = cli("run", lab(DESIGN), "--json", "--trials", 2)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    kinds = [e["event"] for e in events]
    assert kinds == ["asking", "asked", "completed"] * 2 + ["stopped"]
    assert [e["trial"] for e in events if e["event"] == "completed"] == [0, 1]
    assert (events[-1]["completed"], events[-1]["budget"]) == (2, 3)
    losses = [e["metrics"]["loss"]["mean"] for e in events if e["event"] == "completed"]
    assert events[-1]["best"]["metrics"]["loss"]["mean"] == min(losses)
    assert "a word from the black box" in result.stderr


def test_a_live_display_shows_trials_the_best_and_the_times_and_changes_no_result(lab):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    cli("run", lab(DESIGN), "--trials", 1)
    screen = Terminal()
    with Campaign.open("plan.db") as campaign:
        display = make_display(campaign, screen, as_json=False, verbose=False)
        with display:
            campaign.run(on_event=display)
        display.summarize("finished")
        best = campaign.best()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    for words in ("trial 1 (sobol)", "trial 2 (sobol)", "3/3", f"(trial {best.index})", "fit",
                  "acquisition", "evaluation", "plan finished"):  # fmt: skip
        assert words in shown
    assert cli("run", lab(DESIGN), "--database", "other.db").exit_code == 0
    parameters = [[row[2] for row in recorded(d)[0]] for d in ("plan.db", "other.db")]
    assert parameters[0] == parameters[1]


def test_a_campaign_is_never_overwritten_and_resume_is_named(lab):
    file = lab(DESIGN)
    cli("run", file, "--trials", 1)
    before = recorded()
    failed_clearly(cli("run", file), 2, "'plan' already", "bo-surrogates resume plan.db")
    assert recorded() == before
    assert cli("resume", file).exit_code == 0
    assert len(recorded()[1]) == 3


def test_resume_says_when_the_budget_is_spent_and_extends_it_for_good(lab):
    file = lab(DESIGN)
    cli("run", file)
    spent = cli("resume", "plan.db")
    assert spent.exit_code == 0
    assert "--trials" in spent.stderr
    assert cli("resume", "plan.db", "--trials", 2).exit_code == 0
    status = json.loads(cli("status", file, "--json").stdout)
    assert (status["budget"], status["completed"]) == (5, 5)


def test_resume_says_what_has_changed_in_the_campaign_file(lab):
    cli("run", lab(DESIGN), "--trials", 1)
    result = cli("resume", lab(DESIGN.replace("high = 1", "high = 2", 1).replace("= 3", "= 4")))
    assert result.exit_code == 0
    assert "changed" in result.stderr
    assert "space" in result.stderr
    assert "budget of 3" in " ".join(result.stderr.split())


@pytest.mark.parametrize(("workers", "initial"), [(1, 5), (2, 3)])
def test_ctrl_c_exits_with_130_and_resume_ends_as_if_nothing_had_happened(lab, workers, initial):
    text = DESIGN.replace(
        "budget = 3\ninitial = 3", f"budget = 5\ninitial = {initial}\nworkers = {workers}"
    )
    file = lab(text + "[acquisition]\nnum_restarts = 1\nraw_samples = 8\nmc_samples = 16\n")
    cli("run", file, "--database", "uninterrupted.db")
    Path("go").unlink()
    running = subprocess.Popen(
        [sys.executable, "-c", "from bo_surrogates.cli import main; main()", "run", file],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A background job ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not Path("waiting").exists():
            assert time.monotonic() < deadline
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)  # as the terminal does
        out, err = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "4 finished trial(s) are stored in plan.db" in err
    assert "bo-surrogates resume plan.db" in err
    assert "Traceback" not in err
    assert "plan interrupted" in out
    Path("go").touch()
    assert cli("resume", "plan.db").exit_code == 0
    ends = [
        json.loads(cli("status", d, "--json").stdout)["trials"]
        for d in ("plan.db", "uninterrupted.db")
    ]
    assert len(ends[0]) == 5
    for ours, theirs in zip(*ends, strict=True):
        assert {k: ours[k] for k in ("parameters", "metrics", "status", "origin")} == {
            k: theirs[k] for k in ("parameters", "metrics", "status", "origin")
        }


# ---- black boxes that fail -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("black_box", "said"),
    [
        ('python = "lab:fails"', "ValueError: no power (lab.py, line"),
        ('python = "lab:nan"', "'loss' is NaN"),
        ('python = "lab:infinite"', "'loss' is infinite"),
        ('python = "lab:text"', "'loss' must be a number, got 'low'"),
        ('timeout = 0.3\npython = "lab:hangs"', "exceeded the time-out of 0.3 s"),
        ('timeout = 60\npython = "lab:dies"', "ended with exit code 7"),
        ('command = "echo done"', "not a JSON object of metrics: 'done'"),
        ("command = \"echo '{}'\"", "'loss' is missing"),
        ("command = \"sh -c 'echo no acid >&2; exit 3'\"", "exit code 3: no acid"),
        ('timeout = 0.3\ncommand = "sleep 600"', "exceeded the time-out of 0.3 s"),
    ],
)
def test_a_black_box_that_keeps_failing_stops_the_run_and_each_reason_is_kept(lab, black_box, said):
    text = DESIGN.replace('python = "lab:measure"', black_box + "\nmax_consecutive_failures = 2")
    result = cli("run", lab(text))
    assert result.exit_code == 1
    message = " ".join(result.stderr.split())
    assert "the last 2 trials failed" in message
    assert said in message
    assert "resume" in message
    assert "Traceback" not in message
    status = json.loads(cli("status", "plan.db", "--json").stdout)
    assert status["abandoned"] == 2
    assert all(said in t["reason"] for t in status["trials"])
    assert said in " ".join(cli("status", "plan.db").stdout.split())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lab:measure", "lab:mesure", "did you mean 'measure'"),
        ("lab:measure", "lob:measure", "no module 'lob'"),
        ('python = "lab:measure"', 'command = "no-such-program"', "no program"),
        ('name = "y"', 'name = "z"', "f(x=..., z=...)"),
    ],
)
def test_a_black_box_that_cannot_be_is_refused_before_anything_is_stored(lab, old, new, said):
    failed_clearly(cli("run", lab(DESIGN.replace(old, new))), 2, said)
    assert not Path("plan.db").exists()


def test_a_device_that_is_not_there_is_refused_before_anything_is_stored_and_can_be_replaced(lab):
    file = lab('device = "cuda:99"\n' + DESIGN)  # more GPUs than any machine has
    failed_clearly(cli("run", file), 2, "'cuda:99' cannot be used here", 'take "cpu"')
    failed_clearly(cli("ask", lab(DESIGN), "--device", "cuda:99"), 2, "cannot be used here")
    assert not Path("plan.db").exists()
    file = lab('device = "cuda:99"\n' + DESIGN)
    assert cli("run", file, "--device", "cpu", "--trials", 1).exit_code == 0
    failed_clearly(cli("resume", file), 2, "'cuda:99' cannot be used here")
    assert cli("resume", file, "--device", "cpu").exit_code == 0
    assert len(recorded()[1]) == 3


# ---- files that are wrong ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (LOSS, LOSS + '[surrogate]\nname = "ensembel"', "did you mean 'ensemble'"),
        (LOSS, LOSS + '[surrogate]\nkernl = "rbf"', "did you mean 'kernel'"),
        ("budget", "bugdet", "did you mean 'budget'"),
        ("low = 0", "low = 3", "bounds are reversed"),
        ("low = 0", "low = 1", "bounds are equal"),
        ("low = 0", "low = nan", "low must be finite"),
        ("low = 0", "low = 0\nlog = true", "needs low > 0"),
        ("budget = 3", "budget = [", "line 2"),
        ('python = "lab:measure"', 'problem = "branim"', "did you mean 'branin'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "ask"])
def test_a_mistake_in_the_file_is_one_message_and_nothing_is_stored(lab, command, old, new, said):
    text = DESIGN.replace(old, new, 1)
    if "problem" in new:
        text = text.replace(PARAMETERS, "").replace(LOSS, "").replace("initial = 3", "")
    failed_clearly(cli(command, lab(text)), 2, "plan.toml", said)
    assert not Path("plan.db").exists()


# ---- by hand -------------------------------------------------------------------------------------
def test_a_campaign_by_hand_is_asked_and_told(lab):
    file = lab(BY_HAND)
    asked = json.loads(cli("ask", file, "--n", 2, "--json").stdout)
    assert [t["trial"] for t in asked] == [0, 1]
    assert all(set(t["parameters"]) == {"x", "y"} for t in asked)
    shown = cli("ask", file).stdout
    assert "y [min]" in shown
    assert cli("tell", file, 0, "loss=0.5±0.1", "cost=2").exit_code == 0
    assert cli("tell", file, 1, "loss=-0.25,0.05", "cost=9").exit_code == 0
    told = json.loads(cli("tell", file, 2, "--failed", "spilt it", "--json").stdout)
    assert (told["status"], told["reason"]) == ("abandoned", "spilt it")
    status = json.loads(cli("status", file, "--json").stdout)
    assert status["trials"][0]["metrics"]["loss"] == {"mean": 0.5, "sem": 0.1}
    # Trial 1 is better and not feasible.
    assert json.loads(cli("best", file, "--json").stdout)["best"]["trial"] == 0
    assert "best: trial 0" in cli("best", file).stdout
    assert "spilt it" in cli("status", file).stdout


def test_points_are_asked_with_parameters_held(lab):
    file = lab(BY_HAND)
    found = json.loads(cli("ask", file, "--n", 2, "--fix", "x=0.25", "--json").stdout)
    assert [t["parameters"]["x"] for t in found] == [0.25, 0.25]
    assert len({t["parameters"]["y"] for t in found}) == 2
    (whole,) = json.loads(cli("ask", file, "--fix", "x=0.5", "--fix", "y=1", "--json").stdout)
    assert whole["parameters"] == {"x": 0.5, "y": 1.0}


@pytest.mark.parametrize(
    ("fix", "said"),
    [
        (["x"], "write"),
        (["x=2"], "'x' must be in [0.0, 1.0], got 2"),
        (["x=low"], "'x'"),
        (["xs=0.5"], "unknown parameter 'xs'; did you mean 'x'"),
        (["x=0.5", "x=0.6"], "given twice"),
    ],
)
def test_a_wrong_fix_is_one_message_and_asks_nothing(asked, fix, said):
    before = recorded()
    result = cli("ask", asked, *(part for text in fix for part in ("--fix", text)))
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert recorded() == before


@pytest.fixture
def asked(lab):
    """A campaign by hand with trial 0 told, trials 1 and 2 running."""
    file = lab(BY_HAND)
    cli("ask", file, "--n", 3)
    cli("tell", file, 0, "loss=1", "cost=1")
    return file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([1, "lose=1", "cost=1"], "did you mean 'loss'"),
        ([1, "loss=1"], "'cost' is missing"),
        ([1, "loss=one", "cost=1"], "cannot read 'one' as a number"),
        ([1, "loss=", "cost=1"], "cannot read ''"),
        ([1, "loss=1,2,3", "cost=1"], "cannot read '1,2,3'"),
        ([1, "loss", "cost=1"], "write metric=value"),
        ([1, "loss=1", "loss=2", "cost=1"], "given twice"),
        ([1, "loss=nan", "cost=1"], "must be finite"),
        ([1, "loss=1", "cost=inf"], "must be finite"),
        ([1, "loss=1±-0.1", "cost=1"], "standard error must be >= 0"),
        ([7, "loss=1", "cost=1"], "no trial 7"),
        ([0, "loss=1", "cost=1"], "trial 0 is completed already"),
        ([0, "--failed", "no"], "trial 0 is completed already"),
        ([1], "either results"),
        ([1, "loss=1", "cost=1", "--failed", "no"], "not both"),
        ([1, "--failed", " "], "reason"),
    ],
)
def test_a_wrong_tell_is_one_message_and_changes_nothing(asked, arguments, said):
    before = recorded()
    failed_clearly(cli("tell", asked, *arguments), 2, said)
    assert recorded() == before


def test_a_campaign_by_hand_cannot_be_run_but_keeps_what_it_has(asked):
    before = recorded()
    failed_clearly(cli("resume", asked), 2, "no black box")
    assert recorded() == before


def test_results_are_read_in_every_form():
    metrics = ("a", "b=c")
    assert parse_results(["a=1e-3", "b=c=-2"], metrics) == {"a": 1e-3, "b=c": -2.0}
    assert parse_results(["a=1 ± 0.5"], metrics) == {"a": (1.0, 0.5)}
    assert parse_results(["a=1+-0.5"], metrics) == parse_results(["a=1,0.5"], metrics)
    with pytest.raises(InputError):
        parse_results(["a"], metrics)


# ---- several objectives --------------------------------------------------------------------------
def test_best_of_two_objectives_is_the_pareto_front_with_its_hypervolume(lab):
    file = lab(TWO)
    assert cli("run", file).exit_code == 0
    best = json.loads(cli("best", file, "--json").stdout)
    points = [
        (t["metrics"]["loss"]["mean"], t["metrics"]["gain"]["mean"])
        for t in json.loads(cli("status", file, "--json").stdout)["trials"]
    ]
    front = sorted(
        p for p in points if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points)
    )
    ours = [
        (t["metrics"]["loss"]["mean"], t["metrics"]["gain"]["mean"]) for t in best["pareto_front"]
    ]
    assert ours == front
    # Two dimensions: rectangles between the front and the reference point (2, -1).
    right = [loss for loss, _ in front[1:]] + [2.0]
    area = sum((r - loss) * (gain + 1.0) for (loss, gain), r in zip(front, right, strict=True))
    assert best["hypervolume"] == pytest.approx(area, rel=1e-12)
    shown = cli("best", file).stdout
    assert f"{area:.6g}" in shown
    assert f"Pareto front: {len(front)} trials" in shown


def test_best_infers_a_missing_reference_and_says_so(lab):
    file = lab(TWO.replace("reference = 2.0\n", ""))
    assert cli("run", file).exit_code == 0
    best = json.loads(cli("best", file, "--json").stdout)
    losses = [t["metrics"]["loss"]["mean"] for t in best["pareto_front"]]
    assert best["reference_inferred"] == ["loss"]
    assert best["reference"]["gain"] == -1.0
    worst = max(losses) + 0.1 * (max(losses) - min(losses))
    assert best["reference"]["loss"] == pytest.approx(worst, rel=1e-6)
    assert "(inferred)" in cli("best", file).stdout


@pytest.mark.parametrize(("width", "columns"), [(40, False), (200, True)])
def test_a_table_too_wide_for_the_terminal_keeps_every_name_and_value(
    lab, monkeypatch, width, columns
):
    long = "a_rather_long_name_of_a_parameter"
    file = lab(BY_HAND.replace('"y"', f'"{long}"'))
    monkeypatch.setenv("COLUMNS", str(width))
    shown = cli("ask", file).stdout
    value = json.loads(cli("status", file, "--json").stdout)["trials"][0]["parameters"][long]
    assert "…" not in shown
    joined = "".join(shown.split())
    assert (f"{long}=" not in joined) == columns
    assert long in joined
    assert f"{value:.6g}" in joined


def test_before_any_result_best_says_so(lab):
    file = lab(TWO)
    cli("ask", file)
    assert json.loads(cli("best", file, "--json").stdout) == {
        "pareto_front": [],
        "hypervolume": 0.0,
        "reference": {"loss": 2.0, "gain": -1.0},
        "reference_inferred": [],
    }
    assert "no completed trial" in cli("best", file).stdout


# ---- databases that are wrong --------------------------------------------------------------------
def test_a_missing_database_names_how_to_start(lab):
    for command in ("status", "best", "resume"):
        failed_clearly(cli(command, "none.db"), 2, "no database none.db", "run")
        failed_clearly(cli(command, "none.toml"), 2, "none.toml")


@pytest.mark.parametrize("command", ["status", "best", "resume", "ask"])
def test_a_database_that_is_not_ours_is_refused_and_left_alone(lab, command):
    with sqlite3.connect("theirs.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    Path("text.db").write_text("this is no database at all, only a long text " * 50)
    for name, said in (("theirs.db", "another program"), ("text.db", "not an SQLite database")):
        before = Path(name).read_bytes()
        failed_clearly(cli(command, name), 2, said)
        assert Path(name).read_bytes() == before


@pytest.mark.parametrize("command", ["status", "resume"])
def test_a_database_of_a_newer_version_is_refused_and_left_alone(asked, command):
    with sqlite3.connect("plan.db") as connection:
        connection.execute("UPDATE bo_surrogates_schema SET version = 99")
    before = recorded()
    failed_clearly(cli(command, "plan.db"), 2, "newer version", "upgrade")
    assert recorded() == before


def test_a_locked_campaign_names_its_writer_and_can_still_be_looked_at(asked):
    before = recorded()
    with Campaign.open("plan.db"):
        for arguments in (
            ["resume", "plan.db"],
            ["ask", asked],
            ["tell", asked, 1, "loss=1", "cost=1"],
        ):
            failed_clearly(cli(*arguments), 1, "being written by", str(os.getpid()))
        assert cli("status", asked).exit_code == 0
        assert cli("best", asked).exit_code == 0
    assert recorded() == before


def test_a_read_only_database_can_be_looked_at_and_not_written(asked):
    before = recorded()
    # The way that holds for root too, who may write any file.
    database = f"sqlite:///file:{Path('plan.db').absolute()}?mode=ro&uri=true"
    assert cli("status", database).exit_code == 0
    failed_clearly(cli("tell", database, 1, "loss=1", "cost=1"), 1, "read-only")
    assert recorded() == before


def test_one_database_holds_several_campaigns_by_name(lab):
    lab(DESIGN)
    lab(DESIGN, "second.toml")
    cli("run", "plan.toml", "--database", "shared.db", "--trials", 1)
    cli("run", "second.toml", "--database", "shared.db", "--trials", 2)
    failed_clearly(cli("status", "shared.db"), 2, "2 campaigns", "plan, second")
    for name, trials in (("plan", 1), ("second", 2)):
        by_name = json.loads(cli("status", "shared.db", "--name", name, "--json").stdout)
        by_file = json.loads(
            cli("status", f"{name}.toml", "--database", "shared.db", "--json").stdout
        )
        assert by_name == by_file
        assert by_name["completed"] == trials


def test_a_database_given_twice_is_refused(lab):
    failed_clearly(cli("status", "a.db", "--database", "b.db"), 2, "--database")


# ---- errors --------------------------------------------------------------------------------------
def test_debug_shows_where_an_error_comes_from(lab):
    result = cli("--debug", "status", "none.db")
    assert isinstance(result.exception, InputError)


def test_an_error_that_was_not_foreseen_is_said_without_a_traceback(lab, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("this should not happen")

    monkeypatch.setattr(Campaign, "open", broken)
    failed_clearly(cli("status", "plan.db"), 1, "internal error", "ZeroDivisionError", "--debug")


# ---- show ----------------------------------------------------------------------------------------
def test_show_problem_prints_the_card_and_draws_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        app, ["show", "problem", "levy", "-o", "dim=3", "-o", "shifted=false"]
    )
    assert result.exit_code == 0, result.output
    assert "dim=3" in result.output
    assert "optimum: 0 (closed form)" in result.output
    assert (tmp_path / "levy.png").exists()
    quiet = CliRunner().invoke(app, ["show", "problem", "branin", "--no-picture"])
    assert "wrote" not in quiet.output
    assert not (tmp_path / "branin.png").exists()


def test_show_draws_a_problem_of_seconds_an_evaluation_only_on_request(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert PROBLEMS["wide_deep"].cost == "seconds"
    quiet = CliRunner().invoke(app, ["show", "problem", "wide_deep"])
    assert quiet.exit_code == 0, quiet.output
    assert "wrote" not in quiet.output
    assert not list(tmp_path.iterdir())


def test_show_surrogate_prints_its_configuration():
    result = CliRunner().invoke(app, ["show", "surrogate", "gp"])
    assert result.exit_code == 0
    assert "kernel = " in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "problem", "brannin"], "did you mean 'branin'"),
        (["show", "problem", "levy", "-o", "dim"], "write key=value, e.g. dim=10"),
        (["show", "problem", "levy", "-o", "dim=0"], "dim must be in [1, 10000]"),
        (["show", "problem", "levy", "-o", "dim=2", "-o", "dim=3"], "'dim' is given twice"),
        (["show", "surrogate", "gp", "-o", "kernel=rbf"], "takes a name only"),
        (["list", "problems", "--tag", "constraind"], "did you mean 'constrained'"),
        (["list", "surrogates", "--tag", "mixed"], "only problems have tags"),
    ],
)
def test_mistakes_of_list_and_show_are_named(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_list_problems_can_be_narrowed_by_tags():
    result = CliRunner().invoke(app, ["list", "problems", "--tag", "constrained", "--json"])
    rows = json.loads(result.stdout)
    assert {"welded_beam", "gramacy"} <= {r["name"] for r in rows}
    assert all(r["constraints"] > 0 for r in rows)
