"""`tune` on the command line."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from bo_surrogates.cli import app
from problems.documented.trained_model import load_model, read_description

QUICK = ["--set", "epochs=1", "--set", "limit=64", "--set", "squeeze_excite=false"]


def call(*arguments):
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tune") / "out"
    result = call(
        "pokebnn", "--budget", 3, "--workers", 1, "--objectives", "error", "log_bits", *QUICK,
        "--output", place,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return place


def test_one_command_leaves_front_picture_configurations_and_network(folder):
    names = {p.name for p in folder.iterdir()}
    assert {"trials.csv", "front.csv", "front.png", "best.toml", "front"} <= names
    assert {"model.safetensors", "model.json"} <= names
    table = pd.read_csv(folder / "trials.csv")
    assert {"error", "log_bits"} <= set(table.columns)
    assert len(table) == 3
    load_model(folder)


def test_a_configuration_is_trained_again_into_another_folder(folder, tmp_path):
    result = call("--retrain", folder / "front" / "1.toml", "--output", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert "validation: error" in result.output
    assert read_description(tmp_path / "again") == read_description(folder)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "name what to tune: one of bibench, biper, "),
        (["pokebn"], "did you mean 'pokebnn'"),
        (["pokebnn", "epochs=3"], "unexpected argument 'epochs=3'"),
        (["pokebnn", "--objectives", "eror"], "unknown objective 'eror'"),
        (["pokebnn", "--set", "epoch=3"], "did you mean 'epochs'"),
        (["pokebnn", "--surrogate", "gpp"], "unknown surrogate 'gpp'"),
        (["pokebnn", "--set", "objectives=error", "--objectives", "error"], "given twice"),
        (["--retrain", "none.toml"], "no configuration 'none.toml'"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(
    arguments, complaint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
