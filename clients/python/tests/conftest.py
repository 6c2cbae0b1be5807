from __future__ import annotations

import os
from typing import Iterator

import pytest

from lead_audit import AuditContext

from .cluster import Cluster, Database, StatementLog


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    made = Cluster(f"cluster-{os.getpid()}")
    yield made
    made.remove()


@pytest.fixture
def database(cluster: Cluster) -> Database:
    return cluster.database()


@pytest.fixture
def statement_log(cluster: Cluster) -> StatementLog:
    return StatementLog(cluster.log)


@pytest.fixture(autouse=True)
def no_context() -> None:
    """Empties the context before each test."""
    AuditContext.clear()
