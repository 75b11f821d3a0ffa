"""The server process: what it is made of, how it begins, and how it ends without losing anything.

For ``xops serve``. It listens at once and is ready when its models are loaded. SIGTERM or SIGINT: it says
that it is not ready, goes on answering for ``drain_seconds``, takes no more connections, answers what is
under way, writes the prediction log, and ends with 0; each of these is bounded in time. A second signal ends
it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import ipaddress
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import uvicorn

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, Variant
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.online._connections import bounded_protocol
from airflow_provider_xops.serving.online.access_log import AccessLog
from airflow_provider_xops.serving.online.app import make_app
from airflow_provider_xops.serving.online.auth import Guard
from airflow_provider_xops.serving.online.fleet import Fleet
from airflow_provider_xops.serving.online.follower import Follower
from airflow_provider_xops.serving.online.inputs import Extra
from airflow_provider_xops.serving.online.limits import Limits, Workers
from airflow_provider_xops.serving.online.metrics import Figures
from airflow_provider_xops.serving.online.model_files import KEEP, ModelFiles
from airflow_provider_xops.serving.online.prediction_log import PredictionLog
from airflow_provider_xops.serving.online.scoring import Scorer
from airflow_provider_xops.serving.online.shadow import ShadowRunner
from airflow_provider_xops.serving.online.site import Served, Site
from airflow_provider_xops.serving.online.variants import LoadedModel, Loader

__all__ = ["Logging", "Target", "listen", "make_site", "run"]

log = logging.getLogger(__name__)

KEYS_READ_EVERY_S = 5
ACCESS_LOG_ENDS_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to serve.

    :param version: this one whatever the ledger says; None: follow the alias.
    """

    model: str
    alias: str = "champion"
    version: int | None = None


@dataclass(frozen=True, kw_only=True)
class Logging:
    """How predictions are logged.

    :param table: the table; ``{model}`` and ``{alias}`` stand for what is served. Several models need tables
        of their own. The others are as in :class:`.prediction_log.PredictionLog`.
    """

    table: str
    overflow: str = "drop"
    max_rows: int = 100_000
    flush_rows: int = 5_000
    flush_seconds: float = 5.0
    keep_columns: tuple[str, ...] = ()


def make_site(
    targets: Sequence[Target],
    *,
    lake_factory: Callable[[], Lake],
    client: RegistryClient,
    server: str,
    limits: Limits,
    guard: Guard,
    interval: float = 2.0,
    logging_to: Logging | None = None,
    extra: Extra = "refuse",
    cache: Path | None = None,
    key_header: str = "X-Request-Key",
    own_process: bool = False,
    clock: Callable[[], datetime],
    actor: Actor,
) -> Site:
    """Put a server together; nothing is read or loaded before :meth:`.site.Site.start`.

    :param server: the server's own name, in its sessions and log rows.
    :param interval: seconds between looks at the lake.
    :param extra: what happens with columns that are not the model's.
    :param cache: folder for model files, by which a server starts while MLflow is down; None: none.
    :param own_process: nothing else runs in this process: before the first model is loaded, everything there
        is so far is kept out of Python's collector of cycles, for good.
    :raises ArgumentError: ``argument.served``, ``argument.prediction_log``.
    """
    names = [each.model for each in targets]
    tables = [_table(logging_to, each) for each in targets]
    if logging_to is not None and len(set(tables)) < len(tables):
        raise ArgumentError(
            "several models cannot share one prediction log", code="argument.prediction_log",
            todo="put {model} or {alias} into the name of the table",
        )  # fmt: skip
    figures = Figures()
    # One for all: each keeps as many versions as it may need, and forgets the least recently used.
    files = ModelFiles(cache, keep=KEEP * len(targets))
    settle = functools.cache(_spare_the_collector if own_process else bool)
    serving = []
    for target, table in zip(targets, tables, strict=True):
        loader = Loader(
            lake_factory=lake_factory, client=client, server=server, alias=target.alias, clock=clock,
            actor=actor, log_table=table, files=files,
        )  # fmt: skip
        fleet = Fleet(_with_imports(loader, settle), clock=clock)
        follower = Follower(
            lake_factory, target.model, target.alias, fleet, version=target.version, interval=interval,
            clock=clock,
        )  # fmt: skip
        kept = logging_to.keep_columns if logging_to is not None else ()
        prediction_log = None
        if logging_to is not None and table is not None:
            prediction_log = PredictionLog(
                lake_factory, table, server=server, max_rows=logging_to.max_rows,
                flush_rows=logging_to.flush_rows, flush_seconds=logging_to.flush_seconds,
                overflow=logging_to.overflow, keep_columns=kept, clock=clock, actor=actor,
            )  # fmt: skip
        name = target.model if names.count(target.model) == 1 else f"{target.model}@{target.alias}"
        scorer = Scorer(
            name, fleet, figures, max_rows=limits.rows, extra=extra, prediction_log=prediction_log,
            shadows=ShadowRunner(prediction_log), keep_columns=kept, clock=clock,
        )  # fmt: skip
        serving.append(
            Served(
                name=name, model=target.model, alias=target.alias, fleet=fleet, scorer=scorer,
                follower=follower,
            )
        )  # fmt: skip
    return Site(
        server=server, serving=serving, figures=figures, clock=clock, guard=guard, limits=limits,
        key_header=key_header,
    )  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    :raises ArgumentError: ``argument.address``.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise ArgumentError(
            f"the server cannot listen at {host}:{port}", code="argument.address",
            why=error.strerror or type(error).__name__, todo="choose another --host or --port",
        ) from None  # fmt: skip
    made.set_inheritable(False)
    return made


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run(
    site: Site,
    listening: socket.socket,
    *,
    model_threads: int = 1,
    certificate: tuple[Path, Path] | None = None,
    access: AccessLog | None = None,
) -> int:
    """Serve until told to end.

    :param model_threads: threads that one prediction may use inside the model's own libraries.
    :param certificate: files of a TLS certificate and its key; None: plain HTTP.
    :param access: notes each request, and is closed at the end; None: nobody does.
    :returns: 0, or 1 when something was lost: rows of the log that the lake did not take in time, a request
        that a model never ended.
    """
    limits = site.limits
    workers = Workers(limits, prepare=lambda: _limit_threads(model_threads))
    server = _Server(_config(site, workers, certificate, access), site)
    site.start()
    server.run(sockets=[listening])
    whole = workers.close()
    lost = site.stop(limits.shutdown_seconds)
    if access is not None:
        access.close(ACCESS_LOG_ENDS_S)
    if not whole:
        log.error("%d request(s) did not end in time.", workers.inflight)
    log.info("Ended; %d rows of the prediction log were not written.", lost)
    return 0 if whole and not lost else 1


class _Server(uvicorn.Server):
    """uvicorn's server with an end of its own: not ready first, then no more connections."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, self._asked_to_end, each)
        try:
            yield
        finally:
            # Until the very end a second signal still ends the process at once.
            for each in signals:
                loop.remove_signal_handler(each)
                signal.signal(each, lambda number, _frame: os._exit(128 + number))

    def _asked_to_end(self, number: int) -> None:
        if self._site.draining:
            os._exit(128 + number)
        self._site.draining = True
        drain = self._site.limits.drain_seconds
        log.info("Asked to end: not ready any more, taking requests for %g s.", drain)
        asyncio.get_running_loop().call_later(drain, self._end)

    def _end(self) -> None:
        self.should_exit = True


def _config(
    site: Site,
    workers: Workers,
    certificate: tuple[Path, Path] | None,
    access: AccessLog | None = None,
) -> uvicorn.Config:
    async def look_at_keys() -> None:
        site.guard.refresh()

    files = (
        {} if certificate is None else dict(zip(("ssl_certfile", "ssl_keyfile"), certificate, strict=True))
    )
    config = uvicorn.Config(
        make_app(site, workers, access),
        http=bounded_protocol(site.limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(site.limits.idle_seconds)),
        timeout_graceful_shutdown=max(1, round(site.limits.shutdown_seconds)),
        limit_concurrency=site.limits.connections,
        callback_notify=look_at_keys,
        timeout_notify=KEYS_READ_EVERY_S,
        **files,  # type: ignore[arg-type]
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ArgumentError(
            "the TLS certificate cannot be used", code="argument.certificate", why=type(error).__name__,
            todo="name a certificate and its unencrypted key, both as PEM files",
        ) from None  # fmt: skip
    return config


def _with_imports(loader: Loader, settle: Callable[[], object]) -> Callable[[str, Variant], LoadedModel]:
    """Loading that has first imported all it will need: a swap under load must not do that."""

    def load(model: str, variant: Variant, /) -> LoadedModel:
        loader.prepare()
        settle()
        return loader(model, variant)

    return load


def _spare_the_collector() -> None:
    """Keep what is there now out of Python's collector of cycles.

    The libraries are some hundred thousand objects that stay to the end. Reading a model makes so many more
    that the collector goes through all of them, and no request is answered in that tenth of a second.
    """
    gc.collect()
    gc.freeze()


def _limit_threads(count: int) -> None:
    """In a worker thread: several requests at a time must not each take all processors for their matrices."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(count)


def _table(logging_to: Logging | None, target: Target) -> str | None:
    if logging_to is None:
        return None
    return logging_to.table.replace("{model}", target.model).replace("{alias}", target.alias)
