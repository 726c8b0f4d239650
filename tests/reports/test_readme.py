"""The README tells the truth: its table is the registry's, its example runs."""

import re

import pytest

from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES
from reports.readme import README, surrogate_table, with_table


def test_the_table_of_surrogates_is_the_registrys():
    text = README.read_text()
    assert with_table(text) == text, "run: python -m reports.readme"
    for name in SURROGATES:
        assert f"| `{name}` |" in surrogate_table()


def test_a_readme_without_markers_is_refused():
    with pytest.raises(InputError, match="lacks the markers"):
        with_table("# no markers")


def test_the_example_runs_and_finds_the_optimum(tmp_path, monkeypatch, capsys):
    """As printed, with fewer trials and a cheaper surrogate: it is the code that is on trial."""
    example = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    example = example.replace("budget=25", "budget=14").replace('"nngp"', '"gp"')
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README", "exec"), {})
    # The optimum is 0.9, in ethanol.
    assert "'solvent': 'ethanol'" in capsys.readouterr().out
    assert (tmp_path / "reaction.db").exists()
