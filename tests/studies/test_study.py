"""Studies: what a file may say, and what is refused before anything runs."""

import dataclasses

import pytest

from bo_surrogates.errors import InputError
from studies.changes import forbidden_changes
from studies.study import ProblemArm, Study, SurrogateArm
from studies.study_file import find_study, read_study, shipped, study_from_mapping
from tests.studies.conftest import small

FILE = """
name = "mine"
seeds = [3, 5]
iterations = 7
q = 2

[acquisition]
num_restarts = 8

[[problems]]
name = "ackley"
label = "Ackley-10"
options = { dim = 10 }
iterations = 40

[[problems]]
name = "branin"
initial = 9

[[surrogates]]
name = "gp"

[[surrogates]]
name = "gp"
label = "gp, Matern"
kernel = "matern"
"""


def test_a_file_says_what_is_compared(tmp_path):
    path = tmp_path / "some.toml"
    path.write_text(FILE)
    study = read_study(path).resolve()
    assert study.name == "mine"
    assert study.acquisition.num_restarts == 8
    assert [(p.label, p.problem, p.initial, p.q, p.iterations) for p in study.problems] == [
        ("Ackley-10", "ackley", 22, 2, 40),
        ("branin", "branin", 9, 2, 7),
    ]
    assert study.problems[0].config["dim"] == 10
    assert [s.config["kernel"] for s in study.surrogates][1] == "matern"
    assert len(study.cells) == 2 * 2 * 2
    assert [c.seed for c in study.cells] == [3] * 4 + [5] * 4


def test_plain_data_makes_an_equal_study_and_resolving_twice_changes_nothing():
    study = small().resolve()
    assert Study.from_dict(study.to_dict()) == study
    assert study.resolve() == study


def test_names_alone_make_a_study():
    given = {"seeds": 2, "problems": ["branin"], "surrogates": ["gp", "nngp"]}
    assert study_from_mapping(given) == Study.of(["branin"], ["gp", "nngp"], seeds=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds = [3, 5]", ""), "'seeds' is missing"),
        (("seeds = [3, 5]", "seeds = [3, 3]"), "seeds must differ"),
        (("seeds = [3, 5]", "seeds = 0"), "their number >= 1"),
        (("q = 2", "qq = 2"), "unknown key 'qq'; did you mean 'q'"),
        (("q = 2", "q = 0"), "q must be a whole number >= 1"),
        (("num_restarts", "num_restart"), r"\[acquisition\].*did you mean 'num_restarts'"),
        (('name = "ackley"', 'name = "akley"'), "did you mean 'ackley'"),
        (('"gp, Matern"\nkernel', '"gp, Matern"\nkernal'), "surrogate 'gp, Matern'.*'kernel'"),
        (('label = "gp, Matern"', ""), "two are called 'gp'"),
        (('label = "gp, Matern"', 'label = "GP"'), "the same file name"),
        (("dim = 10", "dims = 10"), "no option 'dims'; did you mean 'dim'"),
        (("options = { dim = 10 }", "dim = 10"), "its own options go into options"),
        (('name = "branin"', 'name = "branin_currin"\nlabel = "b"'), None),
        (('[[surrogates]]\nname = "gp"\n\n', '[[surrogates]]\nname = "gpp"\n'), "mean 'gp'"),
    ],
)
def test_mistakes_in_a_file_are_told_with_their_place(tmp_path, change, message):
    assert change[0] in FILE
    path = tmp_path / "bad.toml"
    path.write_text(FILE.replace(*change, 1))
    if message is None:
        read_study(path).resolve()
        return
    with pytest.raises(InputError, match=f"(?s){message}"):
        read_study(path).resolve()


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (Study.of(["poly_draw"], ["gp"]), "practical up to 100 inputs, and here it would have 200"),
        (Study.of(["branin"], ["hmc"], iterations=600), "practical up to 500 observations"),
        (
            Study.of(["branin_currin"], ["gp"], acquisition=dataclasses.replace(
                small().acquisition, name="qucb")),
            "problem 'branin_currin': acquisition 'qucb' does not fit 2 objective",
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_the_reason(study, message):
    with pytest.raises(InputError, match=message):
        study.resolve()


def test_what_is_not_practical_can_be_asked_for():
    study = Study.of(["poly_draw"], ["gp"], beyond_practical=True)
    assert study.resolve().problems[0].initial == 402


def test_a_surrogate_that_takes_no_categories_is_refused(monkeypatch):
    from bo_surrogates.surrogates import SURROGATES

    entry = SURROGATES["gp"]
    numeric = dataclasses.replace(
        entry, capabilities=dataclasses.replace(entry.capabilities, categorical=False)
    )
    monkeypatch.setitem(SURROGATES._entries, "gp", numeric)
    with pytest.raises(InputError, match="'pest_control'.*does not take categorical inputs"):
        Study.of(["pest_control"], ["gp"]).resolve()


def test_cells_of_other_settings_have_another_digest():
    cells = small(seeds=1).resolve().cells
    assert len({c.settings for c in cells}) == len(cells)
    longer = small(seeds=1, iterations=9).resolve().cells
    assert [c.settings for c in longer] == [c.settings for c in cells]
    for change in ({"initial": 5}, {"acquisition": dataclasses.replace(cells[0].acquisition)}):
        other = small(seeds=1, **change).resolve().cells
        assert (other[0].settings == cells[0].settings) == ("acquisition" in change)


def test_more_of_everything_may_be_added_and_nothing_else_changed():
    before = small().resolve()
    more = small(
        problems=[*small().problems, ProblemArm("ackley", "ackley")],
        surrogates=[*small().surrogates, SurrogateArm("nngp", "nngp")],
        seeds=3, iterations=9,
    ).resolve()  # fmt: skip
    assert forbidden_changes(before, more) == []
    assert sorted(forbidden_changes(more, before)) == sorted(
        [
            "problem 'branin': iterations 9 -> 3 (only more)",
            "problem 'noisy': iterations 9 -> 3 (only more)",
            "problem 'ackley': no longer there (run a part by --problem)",
            "surrogate 'nngp': no longer there (run a part by --surrogate)",
            "seeds: 2 is no longer there (run a part by --seeds N)",
        ]
    )
    other = small(
        problems=[ProblemArm("branin", "hartmann6"), ProblemArm("noisy", "branin", q=2)],
        surrogates=[SurrogateArm("gp", "nngp"), SurrogateArm("few", "rff", {"features": 65})],
        acquisition=dataclasses.replace(before.acquisition, maxiter=9), initial=5,
    ).resolve()  # fmt: skip
    assert forbidden_changes(before, other) == [
        "acquisition: maxiter 3 -> 9",
        "problem 'branin': was 'branin', is 'hartmann6'",
        "problem 'noisy': noise_std 5.0 -> None",
        "problem 'noisy': initial 4 -> 5",
        "surrogate 'gp': was 'gp', is 'nngp'",
        "surrogate 'few': features 64 -> 65",
    ]


def test_shipped_studies_are_found_by_name_and_can_run():
    for name, study in shipped().items():
        assert study.name == name
        assert study.description
        study.resolve()
    with pytest.raises(InputError, match="no shipped study of that name"):
        find_study("quik")
