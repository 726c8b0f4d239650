"""The report of a study: what it says, what it draws, and what it refuses."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES
from reports.study import report, write_report
from reports.study.analysis import analyse
from reports.study.answer import answers, cautions
from reports.study.convergence import draw_convergence
from reports.study.palette import looks
from reports.study.quality import draw_profiles
from reports.study.ranking import draw_critical_differences, draw_superiority
from reports.study.report import write
from reports.study.tables import by_problem, summary
from tests.studies.synthetic_results import make_results

STATES = {
    ("branin", "nngp", 1): ("failed", 3),
    ("ackley", "dkl", 2): ("partial", 5),
    ("ackley", "dkl", 0): ("missing", -1),
}


class Page(HTMLParser):
    """What a browser would load, and whether tags are closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.images, self.links, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values["href"])
        elif tag in ("script", "link", "iframe", "object") or "src" in values:
            self.loads.append(values.get("src") or values.get("href") or tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def results():
    return make_results(
        ["branin", "ackley", "oil"], seeds=3, iterations=8, several=["oil"], states=STATES
    )


@pytest.fixture(scope="module")
def analysis(results):
    return analyse(results)


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "out"
    write(results, folder)
    return folder


@pytest.fixture(scope="module")
def page(written):
    return Page((written / "index.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(page):
    assert page.open == []
    assert len(page.images) == 9
    assert all(load.startswith("data:image/svg+xml;base64,") for load in page.loads)
    for image in page.images:
        svg = base64.b64decode(image["src"].partition(",")[2]).decode()
        assert svg.rstrip().endswith("</svg>")
        outside = set(re.findall(r'(?:href|src)="(?!#)([^"]*)', svg))
        assert {one for one in outside if not one.startswith("data:")} == set()
        assert image["alt"]


def test_the_page_says_that_the_run_is_unfinished_and_what_is_left_out(page):
    assert "This run is unfinished: 25 of 27 runs have ended, 1 are under way" in page.text
    assert "2 blocks of 9 are left out" in page.text
    assert "1 failed run is counted" in page.text
    assert "no convergence" in page.text
    assert "bo-surrogates study run synthetic.toml" in page.text


def test_every_file_that_the_page_names_lies_beside_it(page, written):
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) > 20
    assert all((written / f).stat().st_size > 10 for f in files)
    tables = pd.read_csv(written / "tables" / "pairs.csv")
    assert len(tables) == 6
    assert {"nemenyi_p_by_problem", "wilcoxon_p_by_run"} <= set(tables)


def test_a_report_replaces_a_report_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FIGURES", {"overall": report.draw_overall})
    results = make_results(["branin"], ["gp"], seeds=2, iterations=3)
    write(results, tmp_path / "report")
    before = (tmp_path / "report" / "index.html").read_bytes()
    notes = tmp_path / "other" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    with pytest.raises(InputError, match=r"holds other things \(notes.txt\) and no report"):
        write(results, notes.parent)
    with pytest.raises(InputError, match="is a file; a report is a folder"):
        write(results, notes)
    assert notes.read_text() == "mine"
    write(results, tmp_path / "report")
    # The same data, the same page.
    assert (tmp_path / "report" / "index.html").read_bytes() == before


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run of a study"):
        write_report(tmp_path)


def test_the_answer_names_who_ranks_first_and_its_rank(analysis):
    first = answers(analysis)[0]
    best = analysis.by_problem.average
    assert first.startswith(f"`{best.index[0]}` has the best average rank over 3 problems: ")
    assert f"{best.iloc[0]:.2f} of 3" in first


def test_an_answer_does_not_claim_what_chance_explains():
    alike = make_results(["p", "q", "r"], {"gp": 0.1, "nngp": 0.1, "dkl": 0.1}, iterations=6)
    told = " ".join(answers(analyse(alike)))
    assert "Differences of ranks are within what chance would explain." in told
    assert "No two surrogates can be told apart over 3 problems" in told


def test_an_answer_says_where_no_test_could_find_anything():
    two = make_results(["p", "q"], {"gp": 0.01, "nngp": 0.1, "dkl": 0.9}, iterations=6)
    told = " ".join(answers(analyse(two)))
    assert "no pair can be told apart at the level of 5 %, whatever the results" in told


def test_differences_that_are_sure_are_named():
    clear = make_results(
        [f"p{k}" for k in range(12)], {"gp": 0.01, "nngp": 0.3, "dkl": 1.5}, seeds=3, iterations=6
    )
    told = answers(analyse(clear))
    assert told[0].startswith("`dkl` has the best average rank over 12 problems: 1.00 of 3")
    assert "chance" not in told[0]
    assert "tells apart `dkl` from" in told[2]


def test_one_surrogate_and_one_problem_are_reported_without_ranks():
    alone = analyse(make_results(["branin"], ["gp"], seeds=2, iterations=4))
    assert alone.main is None
    assert answers(alone)[0].startswith("`gp` alone took part")
    assert "With one problem" in cautions(alone)[0]
    chosen = looks({"gp": "gp"})
    drawn = {name for name, draw in report.FIGURES.items() if draw(alone, chosen) is not None}
    assert drawn == {"convergence", "overall", "cost", "seconds", "coverage", "pit"}


def test_a_run_that_has_only_begun_is_reported():
    states = {("branin", s, k): ("missing", -1) for s in ("gp", "nngp") for k in (0, 1)}
    states["branin", "gp", 0] = ("partial", 2)
    begun = analyse(make_results(["branin"], ["gp", "nngp"], seeds=2, states=states))
    assert answers(begun)[0].startswith("No problem and seed is complete")
    assert summary(begun)["surrogate"].tolist() == ["gp", "nngp"]
    chosen = looks({"gp": "gp", "nngp": "nngp"})
    assert draw_critical_differences(begun, chosen) is None
    assert draw_superiority(begun, chosen) is None
    assert draw_profiles(begun, chosen) is None
    assert len(draw_convergence(begun, chosen).axes) == 1


def test_of_a_study_run_in_part_that_part_is_reported_and_the_rest_named():
    ran = {("branin", s, k) for s in ("gp", "nngp") for k in (0, 1)}
    states = {
        (p, s, k): ("missing", -1)
        for p in ("branin", "ackley") for s in ("gp", "nngp", "dkl") for k in range(4)
        if (p, s, k) not in ran
    }  # fmt: skip
    whole = make_results(["branin", "ackley"], ["gp", "nngp", "dkl"], seeds=4, states=states)
    part = whole.begun()
    alone = make_results(["branin"], ["gp", "nngp"], seeds=2)
    analysis = analyse(part)
    assert (analysis.surrogates, analysis.problems) == (("gp", "nngp"), ("branin",))
    assert analysis.unfinished.empty
    assert part.cells["state"].tolist() == alone.cells["state"].tolist()
    assert analysis.blocks.runs == 2
    told = " ".join(cautions(analysis))
    assert "1 problem more, of which nothing was run yet: `ackley`" in told
    assert "1 surrogate more, of which nothing was run yet: `dkl`" in told
    assert "2 seeds more, of which nothing was run yet: 2, 3" in told
    assert alone.begun().not_begun == {}


def test_labels_are_text_and_not_markup(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FIGURES", {})
    label = "<b>gp</b> & `co`"
    results = make_results(["branin"], [label, "nngp"], seeds=2, iterations=3)
    write(results, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<b>gp" not in text
    assert "&lt;b&gt;gp&lt;/b&gt; &amp; " in text


def test_curves_are_drawn_in_the_problems_own_sign(analysis):
    chosen = looks({s: s for s in analysis.surrogates})
    panels = draw_convergence(analysis, chosen).axes
    assert [p.get_ylabel() for p in panels] == ["regret", "regret", "hypervolume regret"]
    best = make_results(["b"], ["gp"], seeds=3, iterations=4, unknown=["b"])
    (axes,) = draw_convergence(analyse(best), looks({"gp": "gp"})).axes
    assert axes.get_ylabel() == "best value (maximize)"
    values = best.evaluations.groupby("evaluation")["best"].median()
    assert axes.lines[0].get_ydata().tolist() == pytest.approx(values.loc[5:].tolist())


def test_the_table_of_problems_holds_medians_of_the_finished_seeds(analysis):
    table = by_problem(analysis).set_index(["problem", "surrogate"])
    rows = analysis.results.evaluations.query("problem == 'ackley' and surrogate == 'dkl'")
    assert table.loc[("ackley", "dkl"), "seeds"] == 1
    final = rows[rows["seed"] == 1]["regret"].iloc[-1]
    assert table.loc[("ackley", "dkl"), "median"] == pytest.approx(final)
    assert table.groupby("problem")["rank"].min().tolist() == [1, 1, 1]


def test_every_registered_surrogate_has_a_look_of_its_own():
    names = list(SURROGATES)
    found = looks({n: n for n in names})
    assert len({(look.colour, str(look.line)) for look in found.values()}) == len(names)
    assert len({(look.colour, look.marker) for look in found.values()}) == len(names)


def test_a_look_depends_on_the_name_and_not_on_the_order_or_the_others():
    few = looks({"nngp": "nngp", "gp": "gp"})
    many = looks({"hmc": "hmc", "gp": "gp", "ensemble": "ensemble", "nngp": "nngp"})
    assert {n: many[n] for n in few} == few
    arms = {"gp rough": "gp", "gp smooth": "gp", "nngp": "nngp"}
    turned = dict(reversed(arms.items()))
    assert looks(arms) == looks(turned)
    assert len({look.colour for look in looks(arms).values()}) == 3
    assert looks({"gp rough": "gp"})["gp rough"] == few["gp"]


def test_more_surrogates_than_looks_are_drawn_all_the_same():
    arms = {f"arm {k}": "gp" for k in range(40)}
    assert len(looks(arms)) == 40
    assert np.unique([str(look) for look in looks(arms).values()]).size == 28
