"""`xops serve`: the online scoring server."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import Actor, ActorKind, Producer

if TYPE_CHECKING:
    from airflow_provider_xops.serving.online.process import Logging, Target

__all__ = ["add_parsers"]

MIB = 1024 * 1024
NEEDED = ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client")


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    serve = add(groups, "serve", _serve, "Answer requests with the model that the ledger says is in force.")
    serve.add_argument("models", metavar="MODEL[@ALIAS]", nargs="+", help="alias: default champion")
    serve.add_argument("--version", type=int, metavar="N", help="this version, whatever the ledger says")
    serve.add_argument("--host", default="127.0.0.1", help="another than loopback needs keys")
    serve.add_argument("--port", type=int, default=8080, help="0: a free one; it is printed")
    serve.add_argument("--name", help="the server's own name in its records; default HOSTNAME:PORT")
    serve.add_argument("--poll-seconds", type=float, default=2.0, help="between looks at the lake")
    serve.add_argument("--cache", metavar="FOLDER", help="keep model files here: starts while MLflow is down")
    serve.add_argument(
        "--extra-columns", choices=("refuse", "ignore"), default="refuse", help="not the model's"
    )
    serve.add_argument(
        "--key-header", default="X-Request-Key", help="carries the key that sticks to a version"
    )

    log = serve.add_argument_group("prediction log")
    log.add_argument("--log-table", metavar="TABLE", help="may hold {model} and {alias}; default: no log")
    log.add_argument(
        "--log-overflow", choices=("drop", "refuse"), default="drop", help="when the queue is full"
    )
    log.add_argument("--log-max-rows", type=int, default=100_000, help="in memory at most")
    log.add_argument("--log-flush-rows", type=int, default=5_000)
    log.add_argument("--log-flush-seconds", type=float, default=5.0)
    log.add_argument(
        "--log-column", action="append", default=[], metavar="NAME", help="kept; * for all features"
    )

    serve.add_argument(
        "--access-log", action="store_true", help="a line of JSON a request on standard output"
    )

    limits = serve.add_argument_group("limits")
    limits.add_argument(
        "--threads", type=int, default=0, help="requests at a time; default: processors, <= 4"
    )
    limits.add_argument("--queue", type=int, default=64, help="requests that may wait; more: 429")
    limits.add_argument("--max-body-mib", type=float, default=8.0)
    limits.add_argument(
        "--max-bodies-mib", type=float, default=0.0, help="of all requests; default: 256, or 4 bodies"
    )
    limits.add_argument("--max-rows", type=int, default=10_000, help="of one request")
    limits.add_argument("--max-connections", type=int, default=1_000)
    limits.add_argument(
        "--request-seconds", type=float, default=30.0, help="until an answer; then 503 or 504"
    )
    limits.add_argument("--body-seconds", type=float, default=20.0, help="for a body to arrive")
    limits.add_argument("--header-seconds", type=float, default=10.0, help="for the headers to arrive")
    limits.add_argument(
        "--drain-seconds", type=float, default=0.0, help="after SIGTERM, still taking requests"
    )
    limits.add_argument("--shutdown-seconds", type=float, default=20.0, help="then, to answer and to write")
    limits.add_argument("--model-threads", type=int, default=1, help="inside one prediction")

    access = serve.add_argument_group("access (keys also from $XOPS_SERVE_KEYS, $XOPS_SERVE_ADMIN_KEYS)")
    access.add_argument("--keys", metavar="FILE", help="may ask for predictions: one key a line")
    access.add_argument("--admin-keys", metavar="FILE", help="may manage the server, too")
    access.add_argument("--closed-metrics", action="store_true", help="/metrics needs a key")
    access.add_argument("--insecure", action="store_true", help="no keys although others can reach it")
    access.add_argument("--tls-cert", metavar="FILE", help="PEM; with --tls-key")
    access.add_argument("--tls-key", metavar="FILE")


def _serve(args: argparse.Namespace) -> int:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ArgumentError(
            "the server needs packages that are not installed",
            code="argument.extra_missing",
            why=f"missing: {', '.join(missing)}",
            todo='pip install "airflow-provider-xops[serve]"',
        )
    from airflow_provider_xops.lake.lake import open_lake
    from airflow_provider_xops.serving.online import process
    from airflow_provider_xops.serving.online.access_log import AccessLog
    from airflow_provider_xops.serving.online.auth import Guard
    from airflow_provider_xops.settings import lake_settings_from_env

    targets = _targets(args)
    limits = _limits(args)
    guard = Guard(
        {"scoring": args.keys, "admin": args.admin_keys}, open_metrics=not args.closed_metrics
    )  # fmt: skip
    if not guard.locked and not args.insecure and not process.is_loopback(args.host):
        raise ArgumentError(
            f"others can reach {args.host}, and the server would ask nobody for a key",
            code="argument.insecure",
            todo="give --keys FILE (or $XOPS_SERVE_KEYS), or say --insecure",
        )
    certificate = _certificate(args)
    settings = lake_settings_from_env(args.lake)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    listening = process.listen(args.host, args.port)
    port = listening.getsockname()[1]
    name = args.name or f"{socket.gethostname()}:{port}"
    site = process.make_site(
        targets,
        lake_factory=lambda: open_lake(settings),
        client=_common.registry(args),
        server=name,
        limits=limits,
        guard=guard,
        interval=args.poll_seconds,
        logging_to=_logging(args),
        extra=args.extra_columns,
        cache=Path(args.cache) if args.cache else None,
        key_header=args.key_header,
        own_process=True,
        clock=_common.now,
        actor=_actor(name),
    )
    scheme = "https" if certificate else "http"
    host = f"[{args.host}]" if ":" in args.host else args.host
    served = ", ".join(each.name for each in site.serving)
    _common.show(
        args, {"url": f"{scheme}://{host}:{port}", "server": name, "models": list(site.by_name)},
        f"serving {served} at {scheme}://{host}:{port}",
    )  # fmt: skip
    sys.stdout.flush()
    access = AccessLog(sys.stdout.fileno(), clock=_common.now) if args.access_log else None
    code = process.run(
        site, listening, model_threads=args.model_threads, certificate=certificate, access=access
    )
    _leave(code)
    return code


def _targets(args: argparse.Namespace) -> list[Target]:
    from airflow_provider_xops.serving.online.process import Target

    if args.version is not None and len(args.models) > 1:
        raise ArgumentError(
            "--version is of one model", code="argument.version", todo="serve one model, or leave it out"
        )
    targets = []
    for text in args.models:
        model, _, alias = text.partition("@")
        if not model or text.endswith("@"):
            raise ArgumentError(
                f"{text!r} is not MODEL or MODEL@ALIAS", code="argument.served",
                todo="write for example late@champion",
            )  # fmt: skip
        targets.append(Target(model=model, alias=alias or "champion", version=args.version))
    return targets


def _limits(args: argparse.Namespace) -> Any:
    from airflow_provider_xops.serving.online.limits import Limits

    return Limits(
        body_bytes=_bytes("--max-body-mib", args.max_body_mib),
        bodies_bytes=_bytes("--max-bodies-mib", args.max_bodies_mib),
        rows=args.max_rows,
        threads=args.threads,
        queue=args.queue,
        request_seconds=args.request_seconds,
        body_seconds=args.body_seconds,
        header_seconds=args.header_seconds,
        connections=args.max_connections,
        drain_seconds=args.drain_seconds,
        shutdown_seconds=args.shutdown_seconds,
    )


def _bytes(option: str, mib: float) -> int:
    if not math.isfinite(mib):
        raise ArgumentError(
            f"{option} is no finite number", code="argument.limit", todo="give MiB, or leave it out"
        )
    return round(mib * MIB)


def _logging(args: argparse.Namespace) -> Logging | None:
    from airflow_provider_xops.serving.online.process import Logging

    if args.log_table is None:
        return None
    return Logging(
        table=args.log_table,
        overflow=args.log_overflow,
        max_rows=args.log_max_rows,
        flush_rows=args.log_flush_rows,
        flush_seconds=args.log_flush_seconds,
        keep_columns=tuple(args.log_column),
    )


def _certificate(args: argparse.Namespace) -> tuple[Path, Path] | None:
    if bool(args.tls_cert) != bool(args.tls_key):
        raise ArgumentError(
            "a TLS certificate and its key belong together", code="argument.certificate",
            todo="give both --tls-cert and --tls-key, or neither",
        )  # fmt: skip
    return (Path(args.tls_cert), Path(args.tls_key)) if args.tls_cert else None


def _actor(name: str) -> Actor:
    """The server itself: what it writes is no person's act."""
    producer = Producer(kind=ActorKind.SERVICE, id=f"serve:{name}")
    return Actor(producer=producer, idempotency_key=f"serve:{name}", fence=time.time_ns() // 1000)


def _leave(code: int) -> None:
    """End the process now. Everything that must be kept has been written; a thread in which a model never
    ends, or in which somebody waits for a look at the lake, must not keep it alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
