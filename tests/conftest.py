"""Fixtures and hygiene of the whole test suite.

The environment is cleaned when this module is imported, which is before any test imports Airflow, MLflow or
Great Expectations: a private ``AIRFLOW_HOME``, no telemetry, no proxies, nothing of the developer's own
connections.

Servers are real and started on demand, once per session; see ``servers.py``. A test that uses one carries the
marker ``server``. With ``XOPS_REQUIRE_SERVERS=1`` such a test fails where it would otherwise be skipped.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from tests import servers

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.records import Actor
    from airflow_provider_xops.settings import LakeSettings

SERVER_FIXTURES = frozenset({"mlflow_server", "mlflow_server_postgres", "postgres", "seaweedfs"})
REQUIRE_SERVERS = os.environ.get("XOPS_REQUIRE_SERVERS") == "1"


def _clean_environment() -> Path:
    """Replace the developer's environment by the suite's own; gives the folder to remove at the end."""
    home = Path(tempfile.mkdtemp(prefix="xops-tests-"))
    for folder in ("airflow", "dags", "plugins"):
        (home / folder).mkdir()
    kept = servers.clean_environment()
    for name in list(os.environ):
        if name not in kept or name.startswith(("AIRFLOW_", "XOPS_")):
            del os.environ[name]
    os.environ.update({k: value for k, value in kept.items() if not k.startswith(("AIRFLOW_", "XOPS_"))})
    os.environ.update(
        {
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow' / 'airflow.db'}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "airflow" / "logs"),
            "AIRFLOW__API__SECRET_KEY": "a-key-of-the-test-suite-only-long-enough-for-sha512-0123456789",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a-key-of-the-test-suite-only-long-enough-for-sha512-0123456789",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # Never a user's own keys, and never the metadata service of the machine the suite runs on.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            # Two workers and their servers share two processors: threads that spin while they wait for each
            # other would take most of them.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
    )
    # Processes forked by a test run their parent's exit handlers in some libraries: only the owner removes
    # the folder.
    atexit.register(lambda: os.getpid() == _OWNER and shutil.rmtree(home, ignore_errors=True))
    return home


_OWNER = os.getpid()
_HOME = _clean_environment()


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis measures behavior here, not speed: the machine may be busy."""
    from hypothesis import HealthCheck, settings

    settings.register_profile("xops", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("xops")
    signal.signal(signal.SIGTERM, _end_like_ctrl_c)


def _end_like_ctrl_c(number: int, frame: FrameType | None) -> None:
    """A terminated test run stops its servers and removes its folders; a forked child of it just ends."""
    if os.getpid() == _OWNER:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that use a server, and leave the soak tests out unless ``-m`` names them."""
    soak_asked = "soak" in (config.option.markexpr or "")
    kept, left_out = [], []
    for item in items:
        if SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
        (left_out if item.get_closest_marker("soak") and not soak_asked else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Where servers are required, a skip of a test that needs one is a failure."""
    report = yield
    if (
        REQUIRE_SERVERS
        and report.skipped
        and not hasattr(report, "wasxfail")
        and item.get_closest_marker("server")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped although XOPS_REQUIRE_SERVERS=1: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[servers.MlflowServer]:
    """An MLflow server on SQLite, one per session: use names of your own for experiments and models."""
    with servers.mlflow() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.PostgresServer]:
    """A PostgreSQL server, one per session: make a database of your own with ``create_database``."""
    try:
        with servers.postgres() as server:
            yield server
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def mlflow_server_postgres(postgres: servers.PostgresServer) -> Iterator[servers.MlflowServer]:
    """An MLflow server on PostgreSQL, one per session."""
    with servers.mlflow(backend_uri=postgres.create_database("mlflow_of_the_session")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[servers.S3Server]:
    """A SeaweedFS S3 server with the buckets ``lake`` and ``mlflow``, one per session: use a prefix."""
    try:
        with servers.seaweedfs() as server:
            yield server
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def airflow_db() -> Path:
    """Airflow's metadata database in the suite's private home, made once; gives that home."""
    from airflow.utils.db import initdb

    initdb()
    return Path(os.environ["AIRFLOW_HOME"])


@pytest.fixture
def as_of() -> datetime:
    """A fixed moment: the domain never reads the clock."""
    return datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@pytest.fixture
def make_actor() -> Callable[..., Actor]:
    """A maker of actors: ``make_actor(key="load", fence=7)``; without a fence each outranks the last."""
    from airflow_provider_xops.records import Actor

    fences = itertools.count(1)

    def make(*, key: str = "test", fence: int | None = None, name: str = "tester") -> Actor:
        return Actor.user(name, key=key, fence=next(fences) if fence is None else fence)

    return make


@pytest.fixture
def actor(make_actor: Callable[..., Actor]) -> Actor:
    """Somebody who acts once."""
    return make_actor()


@pytest.fixture
def lake_settings(tmp_path: Path) -> LakeSettings:
    """Settings of a local lake that does not exist yet."""
    from airflow_provider_xops.settings import LakeSettings

    return LakeSettings(uri=str(tmp_path / "lake"), storage_options={}, credentials=None)


@pytest.fixture
def lake(lake_settings: LakeSettings, actor: Actor, as_of: datetime) -> Lake:
    """A fresh local lake."""
    from airflow_provider_xops.lake.lake import init_lake, open_lake

    init_lake(lake_settings, actor=actor, as_of=as_of)
    return open_lake(lake_settings)
