"""One torch thread a test process: the suite runs several, and small tensors gain nothing.

And databases of both kinds: an SQLite file, and a database of a PostgreSQL server of our own.
"""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, settings

from benchmarks.postgresql_server import NoPostgreSQLError, PostgreSQLServer

torch.set_num_threads(1)
# No test depends on how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql_server():
    """A server, started when a test first needs it; one a test process."""
    pytest.importorskip("psycopg", reason="psycopg is missing: pip install 'psycopg[binary]'")
    try:
        server = PostgreSQLServer(durable=False)
    except NoPostgreSQLError as error:
        pytest.skip(f"no PostgreSQL server: {error}")
    yield server
    server.stop()


@pytest.fixture
def postgresql(postgresql_server):
    """The URL of an empty PostgreSQL database."""
    return postgresql_server.create(f"test{next(_numbers)}")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """Where a campaign may be stored: a path, then a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "c.db")
    return request.getfixturevalue("postgresql")
