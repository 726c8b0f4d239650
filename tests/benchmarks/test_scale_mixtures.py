"""The data and the arithmetic of the benchmark of scale mixtures."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t

from benchmarks import scale_mixtures
from benchmarks.calibration import of_one_input, sine


def test_heavy_tailed_noise_has_its_law_in_training_and_test():
    name = "sine, 20 points, t noise"
    errors = []
    for seed in range(5):
        noisy = scale_mixtures.TASKS[name](seed)
        quiet = of_one_input(sine, 0.0, (0.0, 0.0), 20, seed)
        assert torch.equal(noisy.X, quiet.X)
        factor = 0.2 * quiet.Y_test.std()
        errors += [(noisy.Y - quiet.Y) / factor, (noisy.Y_test - quiet.Y_test) / factor]
    u = np.sort(t(2.5).cdf(torch.cat(errors).reshape(-1).numpy()))
    steps = np.arange(len(u) + 1) / len(u)
    distance = max((u - steps[:-1]).max(), (steps[1:] - u).max())
    assert distance < math.sqrt(math.log(2e7) / (2 * len(u)))  # exceeded once in ten million


def test_differences_are_those_on_the_same_data():
    rows = pd.DataFrame(
        [
            {"case": case, "task": "a", "seed": seed, "nlpd": nlpd, "crps": 1.0, "coverage": 0.5,
             "fit_seconds": 1.0}
            for case, values in (("nngp", (1.0, 5.0)), ("tp", (0.5, 3.5)))
            for seed, nlpd in enumerate(values)
        ]
    )  # fmt: skip
    table = scale_mixtures.summarize(rows).set_index("case")
    assert table.loc["nngp", "nlpd"] == 0.0
    assert table.loc["tp", "nlpd"] == pytest.approx(-1.0)
    assert table.loc["tp", "nlpd_error"] == pytest.approx(0.5)
    assert table.loc["tp", "nlpd_mean"] == pytest.approx(2.0)


def test_a_case_is_measured_and_reported(capsys):
    arguments = ["--seeds", "2", "--cases", "nngp_t, burr", "--tasks", "sine, 7 points"]
    scale_mixtures.main(arguments)
    shown = capsys.readouterr().out
    assert "nngp_t, burr" in shown
    assert "nan" not in shown
