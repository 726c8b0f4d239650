"""The lab's way of working: forms, data measured before, export and import, on the command line."""

import csv
import io
import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.cli import app

LAB = """
budget = 12
initial = 8
metrics = ["cost"]
constraints = ["cost <= 3"]

[[parameters]]
name = "T"
type = "float"
low = 20
high = 120
unit = "°C"

[[parameters]]
name = "solvent"
type = "choice"
values = ["water", "ethanol"]

[[objectives]]
name = "yield"
direction = "maximize"
"""
OLD = "T,solvent,yield,cost\n20,water,0.1,1\n70.5,ethanol,0.8,2\n"


def cli(*arguments, text=None):
    return CliRunner().invoke(app, [str(a) for a in arguments], input=text)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lab.toml").write_text(LAB, encoding="utf-8")
    return "lab.toml"


def done(*arguments, **options):
    result = cli(*arguments, **options)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments, **options):
    result = cli(*arguments, **options)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert sum(line.startswith("Error:") for line in result.stderr.splitlines()) == 1
    return " ".join(result.stderr.split())


def recorded(database="lab.db"):
    with sqlite3.connect(database) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("trial", "measurement")
        ]


def fill(path, results, delimiter=","):
    """Write results into a form as a spreadsheet would."""
    text = Path(path).read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
    for row in rows:
        row |= results.get(int(row["trial"]), {})
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(("decimal", "delimiter"), [("point", ","), ("comma", ";")])
def test_points_go_out_as_a_form_and_results_come_back(lab, decimal, delimiter):
    done("ask", lab, "--n", 3, "--csv", "points.csv", "--decimal", decimal)
    number = "0.75" if decimal == "point" else "0,75"
    fill("points.csv", {0: {"yield": number, "cost": "2"}, 1: {"failed": "spilt it"}}, delimiter)
    told = done("tell", lab, "--csv", "points.csv")
    assert "recorded 2 trials (0, 1), 1 of them without a result" in told.stdout
    assert "1 trial (2) without a result yet" in told.stderr
    with Campaign.open("lab.db", read_only=True) as campaign:
        first, second, third = campaign.trials
    assert first.value("yield") == 0.75
    assert second.reason == "spilt it"
    assert third.status == "running"
    before = recorded()
    again = json.loads(done("tell", lab, "--csv", "points.csv", "--json").stdout)
    assert again == {"recorded": [], "unchanged": [0, 1], "waiting": [2], "ignored_columns": []}
    assert recorded() == before


def test_a_form_goes_through_pipes(lab):
    form = done("ask", lab, "--csv", "-").stdout
    assert form.splitlines()[0] == "trial,T,solvent,yield,cost,failed"
    filled = form.splitlines()[1].replace(",,,", ",0.5,1,")
    done("tell", lab, "--csv", "-", text=f"{form.splitlines()[0]}\n{filled}\n")
    assert len(recorded()[1]) == 2


def test_waiting_trials_are_shown_and_refilled(lab):
    done("ask", lab, "--n", 2)
    done("tell", lab, 0, "yield=1", "cost=1")
    waiting = json.loads(done("ask", lab, "--waiting", "--json").stdout)
    assert [t["trial"] for t in waiting] == [1]
    refilled = json.loads(done("ask", lab, "--refill", "--n", 3, "--json").stdout)
    assert [t["trial"] for t in refilled] == [1, 2, 3]
    assert json.loads(done("ask", lab, "--refill", "--n", 2, "--json").stdout) == refilled
    assert len(done("ask", lab, "--waiting", "--csv", "-", "--sem").stdout.splitlines()) == 4
    assert "give one of them" in refused("ask", lab, "--waiting", "--refill")


def test_a_filled_in_form_is_not_overwritten_and_nothing_is_asked_for_in_vain(lab):
    done("ask", lab, "--csv", "points.csv")
    before, form = recorded(), Path("points.csv").read_bytes()
    assert "may hold results" in refused("ask", lab, "--csv", "points.csv")
    assert "does not exist" in refused("ask", lab, "--csv", "none/points.csv")
    assert (recorded(), Path("points.csv").read_bytes()) == (before, form)
    done("ask", lab, "--csv", "points.csv", "--force")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--csv", "none.csv"], "no file 'none.csv'"),
        (["0", "--csv", "points.csv"], "not both"),
        (["--csv", "points.csv", "--failed", "x"], "not both"),
        ([], "or --csv FILE"),
        (["--csv", "old.csv"], "column 'trial' is missing"),
    ],
)
def test_a_wrong_tell_of_a_form_changes_nothing(lab, arguments, said):
    Path("old.csv").write_text(OLD)
    done("ask", lab, "--csv", "points.csv")
    before = recorded()
    assert said in refused("tell", lab, *arguments)
    assert recorded() == before


# ---- data ----------------------------------------------------------------------------------------
def test_data_are_imported_once_and_start_a_campaign(lab):
    Path("old.csv").write_text(OLD.replace("cost\n", "cost,note\n"))
    imported = done("import", lab, "old.csv")
    assert "recorded 2 trials (0, 1) as data" in imported.stdout
    assert "columns note" in imported.stderr
    again = json.loads(done("import", lab, "old.csv", "--json").stdout)
    assert (again["recorded"], again["recorded_before"]) == ([], 2)
    status = json.loads(done("status", lab, "--json").stdout)
    assert (status["completed"], status["data"], status["budget"]) == (0, 2, 12)
    assert "beside 2 measured before" in done("status", lab).stdout
    assert json.loads(done("best", lab, "--json").stdout)["best"]["trial"] == 1
    assert json.loads(done("ask", lab, "--json").stdout)[0]["trial"] == 2


def test_data_outside_are_refused_by_row_or_kept(lab):
    Path("old.csv").write_text(OLD + "150,water,0.9,1\n")
    message = refused("import", lab, "old.csv")
    assert "old.csv, row 4, column 'T': parameter 'T' must be in [20.0, 120.0]" in message
    assert recorded()[0] == []
    done("import", lab, "old.csv", "--outside", "keep")
    assert len(recorded()[0]) == 3
    assert json.loads(done("best", lab, "--json").stdout)["best"]["trial"] == 1


def test_prior_data_of_a_campaign_file_lie_beside_it(lab, monkeypatch):
    Path("old.csv").write_text(OLD)
    Path("lab.toml").write_text('prior_data = "old.csv"\n' + LAB, encoding="utf-8")
    folder = Path.cwd()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    asked = json.loads(done("ask", folder / "lab.toml", "--json").stdout)
    assert asked[0]["trial"] == 2
    assert [row[4] for row in recorded(folder / "lab.db")[0]][:2] == ["data", "data"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prior_data = 3", "must be a file"),
        ('prior_data = "none.csv"', "no file"),
        ("[prior_data]\nfile = 'old.csv'\noutsied = 'keep'", "did you mean 'outside'"),
        ("[prior_data]\nfile = 'old.csv'\noutside = 'kep'", "did you mean 'keep'"),
        ("[prior_data]\nfile = 'bad.csv'", "bad.csv, row 2, column 'yield'"),
    ],
)
def test_wrong_prior_data_start_no_campaign(lab, line, said):
    Path("old.csv").write_text(OLD)
    Path("bad.csv").write_text(OLD.replace("0.1", "low"))
    text = line + "\n" + LAB if line.startswith("prior") else LAB + line + "\n"
    Path("lab.toml").write_text(text, encoding="utf-8")
    assert said in refused("ask", lab)
    assert not Path("lab.db").exists()


# ---- whole campaigns -----------------------------------------------------------------------------
@pytest.fixture
def worked(lab):
    return work(lab)


def work(lab):
    """A campaign with data, results, a failure and a running trial."""
    Path("old.csv").write_text(OLD)
    done("import", lab, "old.csv")
    done("ask", lab, "--n", 3)
    done("tell", lab, 2, "yield=0.1±0.02", f"cost={1 / 3!r}")
    done("tell", lab, 3, "--failed", "the µ-pump broke")
    return lab


def test_an_exported_campaign_is_restored_to_the_last_digit(worked):
    with Campaign.open("lab.db") as campaign:
        campaign.tell(4, {"yield": 0.1 + 0.2, "cost": 1e-300}, seconds=1.0 / 3.0)
        campaign.ask()
        campaign.report(5, 1.0, {"yield": 0.5})
        campaign.add_replicate(5, 0, {"yield": 0.25, "cost": 1.0})
        campaign.journal.note_log(campaign._id, 5, "a word")
    done("export", worked, "-o", "all.json")
    done("import", "new.db", "all.json")
    done("export", "new.db", "-o", "again.json")
    assert Path("again.json").read_bytes() == Path("all.json").read_bytes()
    with (
        Campaign.open("lab.db", read_only=True) as ours,
        Campaign.open("new.db", read_only=True) as theirs,
    ):
        assert theirs.trials == ours.trials
        assert theirs.spec == ours.spec
        assert theirs.progress() == ours.progress()
        assert theirs.replicates(5) == ours.replicates(5)
    # The copy goes on as the original would.
    proposed = [json.loads(done("ask", d, "--json").stdout) for d in ("lab.db", "new.db")]
    assert proposed[0][0]["parameters"] == proposed[1][0]["parameters"]


def test_an_export_is_data_for_another_campaign_or_a_campaign_beside_others(worked):
    done("export", worked, "-o", "all.json")
    Path("next.toml").write_text(LAB, encoding="utf-8")
    imported = done("import", "next.toml", "all.json")
    assert "recorded 4 trials" in imported.stdout
    assert "skipped" in imported.stderr
    done("import", "lab.db", "all.json", "--as-campaign", "--name", "copy")
    assert json.loads(done("status", "lab.db", "--name", "copy", "--json").stdout)["data"] == 2
    assert "already" in refused("import", "lab.db", "all.json", "--as-campaign")
    assert "not an exported campaign" in refused("import", "lab.db", "old.csv", "--as-campaign")
    assert "no database" in refused("import", "none.db", "old.csv")
    assert not Path("none.db").exists()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_exported_table_is_the_data_frame(worked, kind):
    file = f"trials.{kind}"
    done("export", worked, "-o", file)
    frame = pd.read_csv(file) if kind == "csv" else pd.read_parquet(file)
    with Campaign.open("lab.db", read_only=True) as campaign:
        expected = campaign.to_dataframe()
        assert list(frame.columns) == list(expected.columns)
        assert list(frame["T"]) == list(expected["T"])
        assert list(frame["cost"].dropna()) == list(expected["cost"].dropna().astype(float))
    assert "may hold results" in refused("export", worked, "-o", file)
    done("export", worked, "-o", file, "--force")
    if kind == "csv":
        assert done("export", worked).stdout == Path(file).read_text(encoding="utf-8-sig")
        assert "nothing to record" in done("tell", worked, "--csv", file).stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What is exported of a campaign with results, as text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("exported"))
        Path("lab.toml").write_text(LAB, encoding="utf-8")
        work("lab.toml")
        done("export", "lab.toml", "-o", "all.json")
        return Path("all.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: d.update(version=99), "upgrade"),
        (lambda d: d.pop("spec"), "damaged"),
        (lambda d: d["spec"].pop("space"), "damaged"),
        (lambda d: d.update(trials=3), "damaged"),
        (lambda d: d["trials"].pop(0), "its number is 1"),
        (lambda d: d["trials"][0].pop("status"), "trial 0"),
        (lambda d: d["trials"][0].update(status="lost"), "unknown status 'lost'"),
        (lambda d: d["trials"][0].update(metrics={}), "completed with 0"),
        (lambda d: d["trials"][0]["parameters"].update(q=1), "unknown parameter 'q'"),
        (lambda d: d["trials"][0]["parameters"].update(T=[1]), "value is [1]"),
        (lambda d: d["trials"][0].update(created="soon"), "trial 0"),
        (lambda d: d["trials"][0].update(reason=3), "expected texts"),
        (lambda d: d["trials"][0].update(progress=[{"step": "x"}]), "progress holds"),
        (lambda d: d["trials"].append(7), "trial 5"),
    ],
)
def test_a_damaged_export_is_refused_and_makes_no_database(lab, exported, damage, said):
    data = json.loads(exported)
    damage(data)
    Path("all.json").write_text(json.dumps(data))
    assert said in refused("import", "new.db", "all.json")
    assert not Path("new.db").exists()


def test_a_table_without_rows_is_told_what_was_expected(lab):
    done("ask", lab, "-n", "1")
    Path("empty.csv").write_text("trial,T,solvent,yield,cost\n", encoding="utf-8")
    result = done("tell", lab, "--csv", "empty.csv")
    assert "nothing to record" in result.stdout
    assert "empty.csv has a header only; expected below it a row for each trial" in result.output
