"""Where the trials of a study are kept while it runs: in memory, or in a database that workers share.

For :mod:`airflow_provider_xops.training.tuning.study`. A shared storage has one thing that Optuna's has not:
a lock of the whole study, held while a worker takes the next trial. With it there are never more trials than
were asked for, and a trial that has no worker's name was left by one that died while it took it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from airflow_provider_xops.errors import ArgumentError, UnavailableError
from airflow_provider_xops.training.tuning.samplers import optuna_module

__all__ = ["Shelf", "beating", "open_shelf", "quiet_optuna", "storage_answers"]

log = logging.getLogger(__name__)

DIALECTS = ("postgresql", "sqlite")
# A worker may log to MLflow while it holds the lock; MLflow's own waiting is bounded below this.
LOCK_TIMEOUT_S = 180
LOCK_LOOK_S = 0.02
# Of three missed heartbeats none was a hiccup.
MISSED_HEARTBEATS = 3


class Shelf:
    """An opened storage.

    :param optuna_storage: Optuna's storage object.
    :param shared: whether other processes may work on the same study.
    """

    def __init__(self, optuna_storage: Any, *, url: Any = None, engine: Any = None) -> None:
        self.optuna_storage = optuna_storage
        self.shared = url is not None
        self._url, self._engine = url, engine

    @contextlib.contextmanager
    def locked(self, study: str) -> Iterator[None]:
        """Alone with a study: no other worker takes, gives up or counts its trials meanwhile.

        The lock ends with the process that holds it, however that ends.

        :raises UnavailableError: ``unavailable.tuning_storage``: it was not to be had in three minutes.
        """
        if not self.shared:
            yield
            return
        with _locked(self._url, self._engine, study):
            yield

    def close(self) -> None:
        """Close its connections."""
        if self.shared:
            self.optuna_storage.remove_session()
            self.optuna_storage.engine.dispose()
            self._engine.dispose()


@contextlib.contextmanager
def open_shelf(url: str | None, *, heartbeat_seconds: int) -> Iterator[Shelf]:
    """The storage of an SQLAlchemy URL (PostgreSQL or SQLite), or a fresh one in memory for None.

    :param heartbeat_seconds: a trial whose worker has not been heard of for three times as long is given to
        another one.
    :raises ArgumentError: ``argument.storage``: the URL is none, or of another database, or its driver is
        missing.
    :raises UnavailableError: ``unavailable.tuning_storage``: the database does not answer.
    """
    optuna = optuna_module()
    if url is None:
        yield Shelf(optuna.storages.InMemoryStorage())
        return
    import sqlalchemy as sa

    parsed = _parsed(url)
    lock_engine = _engine(parsed, poolclass=sa.pool.NullPool)
    # Optuna makes its tables without asking who else does so at the same moment.
    with storage_answers(), _locked(parsed, lock_engine, "tables"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = optuna.storages.RDBStorage(
            _escaped(parsed),
            engine_kwargs=_engine_arguments(parsed),
            heartbeat_interval=heartbeat_seconds,
            grace_period=MISSED_HEARTBEATS * heartbeat_seconds,
        )
    shelf = Shelf(storage, url=parsed, engine=lock_engine)
    try:
        yield shelf
    finally:
        shelf.close()


@contextlib.contextmanager
def beating(shelf: Shelf, trial_id: int, *, seconds: int) -> Iterator[None]:
    """Tell a shared storage every ``seconds`` that the trial's worker lives, in a thread beside the block."""
    if not shelf.shared:
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            try:
                shelf.optuna_storage.record_heartbeat(trial_id)
            except Exception as error:  # the next beat may get through; the block must not end by this one
                log.warning("A heartbeat of trial %d was not recorded: %s.", trial_id, type(error).__name__)
        shelf.optuna_storage.remove_session()

    thread = threading.Thread(target=beat, name=f"xops-heartbeat-{trial_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def storage_answers() -> Iterator[None]:
    """Turn what Optuna and its database driver raise into one retryable error without their messages.

    :raises UnavailableError: ``unavailable.tuning_storage``.
    """
    import sqlalchemy as sa

    optuna = optuna_module()
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sa.exc.OperationalError, sa.exc.DBAPIError) as error:
        cause = error.__cause__ or error
        raise UnavailableError(
            "the database of the tuning study does not answer", code="unavailable.tuning_storage",
            why=f"{type(cause).__name__}", todo="check the connection; trying again continues the study",
        ) from None  # fmt: skip


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna tells each trial with its values on standard error; the task log has lines of our own."""
    optuna = optuna_module()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            warnings.filterwarnings("ignore", message="The distribution is specified")
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def _locked(url: Any, engine: Any, what: str) -> Iterator[None]:
    if url.get_backend_name() == "sqlite":
        # A file that several processes open lies on one machine, so a lock of that machine is enough.
        with Path(f"{url.database}.xops-lock").open("a") as file:
            _wait_for_lock(file)
            yield
        return
    import sqlalchemy as sa

    key = int.from_bytes(hashlib.sha256(f"xops/{what}".encode()).digest()[:8], "little", signed=True)
    with contextlib.ExitStack() as held:
        with storage_answers():
            connection = held.enter_context(engine.connect())
            held.enter_context(connection.begin())
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield


def _wait_for_lock(file: IO[str]) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    "the tuning study is locked by another worker", code="unavailable.tuning_storage",
                    why=f"it has held it for {LOCK_TIMEOUT_S} s", todo="trying again continues the study",
                ) from None  # fmt: skip
        time.sleep(LOCK_LOOK_S)


def _parsed(url: str) -> Any:
    import sqlalchemy as sa

    try:
        parsed = sa.engine.make_url(url)
    except sa.exc.ArgumentError:
        raise _refused("is no SQLAlchemy URL", "for example sqlite:////data/tuning.db") from None
    if parsed.get_backend_name() not in DIALECTS:
        raise _refused(f"is of {parsed.get_backend_name()}", "use PostgreSQL, or SQLite on one machine")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise _refused("is a database in memory, which no other process sees", "name a file")
    return parsed


def _engine_arguments(url: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"hide_parameters": True, "pool_pre_ping": True}
    # SQLite lets one process write at a time; the others wait this long.
    waiting = {"connect_args": {"timeout": 60}} if url.get_backend_name() == "sqlite" else {}
    return {**common, **waiting}


def _engine(url: Any, **more: Any) -> Any:
    import sqlalchemy as sa

    try:
        return sa.create_engine(url, **_engine_arguments(url), **more)
    except (ImportError, sa.exc.ArgumentError):
        raise _refused(
            f"needs a driver for {url.get_backend_name()}, which is not installed",
            "install it where the task runs (psycopg2-binary, for PostgreSQL)",
        ) from None


def _escaped(url: Any) -> str:
    """The URL as Optuna takes it, which fills in names between braces."""
    shown: str = url.render_as_string(hide_password=False)
    return shown.replace("{", "{{").replace("}", "}}")


def _refused(why: str, todo: str) -> ArgumentError:
    return ArgumentError(
        "the storage of the study cannot be used", code="argument.storage", why=f"it {why}", todo=todo
    )
