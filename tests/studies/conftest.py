"""A small run that the tests of studies share; nobody writes into it."""

import shutil

import pytest

from bo_surrogates.acquisition.config import AcquisitionConfig
from studies.runner import run_study
from studies.study import ProblemArm, Study, SurrogateArm

FAST = AcquisitionConfig(mc_samples=8, num_restarts=1, raw_samples=8, maxiter=3)


def small(**changes):
    """Two problems, two surrogates, two seeds."""
    settings = {
        "problems": [
            ProblemArm("branin", "branin"),
            ProblemArm("noisy", "branin", {"noise_std": 5.0}, q=2),
        ],
        "surrogates": [SurrogateArm("gp", "gp"), SurrogateArm("few", "rff", {"features": 64})],
        "seeds": 2,
        "initial": 4,
        "iterations": 3,
        "acquisition": FAST,
        "name": "small",
    }
    return Study.of(**(settings | changes))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a run in one process that was not interrupted."""
    folder = tmp_path_factory.mktemp("study") / "run"
    run_study(small(), folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy to be written into."""
    return shutil.copytree(finished, tmp_path / "copy")
