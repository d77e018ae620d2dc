"""A real PostgreSQL server for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgresql_server import PostgresqlServer, binaries, started


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A server of this run alone, on loopback; skips where PostgreSQL is not installed, but never in CI."""
    if binaries() is None:
        import os

        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed, though .ci/run installs it", pytrace=False)
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with started() as server:
        yield server
