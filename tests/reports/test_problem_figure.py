import pytest
import torch

from problems import PROBLEMS
from reports.problem_figure import draw_problem
from reports.style import save


@pytest.mark.parametrize(
    ("name", "panels"),
    [("xiong", 1), ("branin", 2), ("gramacy", 2), ("welded_beam", 6), ("oil_sorbent", 24)],
)
def test_every_shape_of_problem_is_drawn_with_a_panel_for_each_slice_and_map(
    name, panels, tmp_path
):
    figure = draw_problem(name, PROBLEMS[name].make(), 0.6)
    assert len(figure.axes) == panels  # a map has a colour bar beside it
    assert save(figure, tmp_path / "problem.png").stat().st_size > 5000


def test_a_curve_goes_through_the_function_s_values():
    problem = PROBLEMS["xiong"].make()
    (axes,) = draw_problem("xiong", problem).axes
    x, y = (torch.as_tensor(v) for v in axes.lines[0].get_data())
    torch.testing.assert_close(y, problem(x.unsqueeze(-1)))


def test_where_constraints_fail_the_curve_is_dashed_only():
    problem = PROBLEMS["pressure_vessel"].make()
    figure = draw_problem("vessel", problem)
    length = next(a for a in figure.axes if a.get_xlabel().startswith("length"))
    x, allowed = length.lines[1].get_data()
    drawn = x[~torch.as_tensor(allowed).isnan().numpy()]
    assert drawn.min() >= problem.optimizers[0, 3] - 1e-6
    assert drawn.max() == 200.0


def test_a_slow_problem_is_drawn_with_few_evaluations(monkeypatch):
    problem = PROBLEMS["hartmann6"].make()
    rows = 0
    evaluate = problem._true_metrics

    def counted(X):
        nonlocal rows
        rows += len(X)
        return evaluate(X)

    monkeypatch.setattr(problem, "_true_metrics", counted)
    draw_problem("hartmann6", problem, 0.05)
    assert rows <= 6 * 10
