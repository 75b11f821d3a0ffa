"""The smoke test: a registered model loaded and asked as production would, before anyone may promote it.

For the smoke test operator. A fresh process proves the files, loads them and serves them with MLflow's own
scoring server; holdout rows whose predictions were recorded at training are sent to it, its answers are held
against the record, and its latency, memory and size are measured. The result is a
:class:`~airflow_provider_xops.records.SmokeTest` in the lake's evidence, which promotion gates read.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ModelVersion, Outcome, SmokeTest, digest_of
from airflow_provider_xops.registry.artifacts import artifact_digest, download, size_of
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import recorded_version
from airflow_provider_xops.serving._smoke_checks import Exercise, Findings, Rows, Stopped, check_signature
from airflow_provider_xops.serving._smoke_environment import NotBuilt, build_environment, uv_command
from airflow_provider_xops.serving._smoke_process import Guarded, child_environment, read_report
from airflow_provider_xops.serving._smoke_requests import Client, TimeUp

__all__ = ["CURRENT", "RECORDED", "smoke_test"]

log = logging.getLogger(__name__)

CURRENT, RECORDED = "current", "recorded"
MIB = 2**20
LOOK_SECONDS = 0.05
_CHILD = Path(__file__).with_name("_smoke_child.py")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Without it, errors of schema enforcement print the rows.
    "MLFLOW_DISABLE_SCHEMA_DETAILS": "true",
    "DO_NOT_TRACK": "true",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# A request is small. On a busy worker the threads of OpenMP wait for each other by spinning, and 12 ms become
# more than a second: that would be a figure of the machine, not of the model.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def smoke_test(
    lake: Lake,
    client: RegistryClient,
    model: ModelVersion,
    *,
    environment: str = CURRENT,
    requests: int = 100,
    rows_per_request: Sequence[int] = (1, 100),
    tolerance: float = 1e-9,
    timeout_seconds: float = 300.0,
    actor: Actor,
    as_of: datetime,
) -> SmokeTest:
    """Load a model version in a fresh process, ask it through MLflow's scoring server, record what it did.

    The checks, in this order; the first that fails ends the test:

    - ``digest``: the files have the recorded SHA-256, here and again in the process that loads them, before
      anything is unpickled;
    - ``signature``: the columns that the files ask for are the recorded features;
    - ``environment`` (``recorded`` only): the model's own requirements can be installed;
    - ``load`` and ``server``: it loads, and the server answers;
    - ``predictions`` and ``probabilities``: for the rows recorded at training they are those recorded;
    - ``requests``: every request of the measurement is answered, each row alike in all of them;
    - ``wrong_input``: broken JSON, a missing column and text for a number are refused (4xx), and the server
      answers the next request as before.

    :param model: as recorded; what the lake's evidence says of it counts.
    :param environment: ``current``: this interpreter and its packages; ``recorded``: the Python version and
        the requirements saved with the model, installed by ``uv``.
    :param requests: how many requests are sent of each size, at least 20.
    :param rows_per_request: the sizes. The percentiles of the first are ``latency_p50_ms``,
        ``latency_p95_ms`` and ``latency_p99_ms``; of each also ``latency_p50_ms_100_rows`` and so on.
    :param tolerance: how far a probability or a predicted number may be from the recorded one (absolutely up
        to 1, beyond that relative to it); predicted classes must be the same, whatever it is.
    :param timeout_seconds: for all of it, without the download.
    :returns: the record. Its outcome is ``passed`` only where predictions were compared; ``no_data`` where
        the model has none on record (it was adopted); ``errored`` where the test could not be carried out
        (the environment was not installed, the time was over); ``failed`` where the model is at fault.
    :raises ModelError: ``model.unknown``, ``model.no_artifacts``.
    :raises DataError: ``data.selection_changed``: the holdout rows are not those that were recorded.
    :raises UnavailableError: MLflow or the lake did not answer.
    :raises ArgumentError: ``argument.smoke_test``; ``argument.extra_missing`` (``uv``).

    >>> smoke_test(lake, client, model, actor=actor, as_of=now).outcome  # doctest: +SKIP
    <Outcome.PASSED: 'passed'>

    The model computes with one thread, unless ``OMP_NUM_THREADS``, ``OPENBLAS_NUM_THREADS`` or
    ``MKL_NUM_THREADS`` of this process say otherwise.

    What it does not do: it is no load test (one connection, one request at a time), and no sandbox: a model
    whose files are proved may run its maker's code.
    """
    settings = _settings(environment, requests, rows_per_request, tolerance, timeout_seconds)
    if environment == RECORDED:
        uv_command()
    recorded = recorded_version(lake, model)
    rows = Rows.of(lake, recorded, sizes=settings["rows_per_request"])
    found = Findings()
    with tempfile.TemporaryDirectory(prefix="xops-smoke-") as folder:
        path = download(client, recorded.source_uri, Path(folder) / "model")
        deadline = time.monotonic() + timeout_seconds
        server = ""
        try:
            server = _exercise(recorded, rows, path, Path(folder), found, settings, deadline)
        except Stopped as stopped:
            found.add(stopped.check, stopped.outcome, message=stopped.message)
    if found.ready is not None:
        server = _server_name(found.ready)
    outcome, message = found.outcome(recorded)
    record = SmokeTest(
        recorded_at=as_of,
        produced_by=actor.producer,
        model=recorded.ref,
        artifact_digest=recorded.artifact_digest,
        environment=environment,
        server=server,
        outcome=outcome,
        checks=tuple(found.checks),
        figures=found.figures,
        settings_digest=digest_of(settings),
        rows=rows.compared,
        requests=found.requests,
        max_difference=found.max_difference,
        tolerance=tolerance,
        message=message,
    )
    lake.evidence.put(record)
    log.info(
        "Smoke test of %s: %s (%d requests)%s.",
        recorded.ref,
        outcome,
        found.requests,
        message and f": {message}",
    )
    return record


def _settings(
    environment: str, requests: int, sizes: Sequence[int], tolerance: float, seconds: float
) -> dict[str, Any]:
    if environment not in (CURRENT, RECORDED):
        raise _refused(f"unknown environment {environment!r}", f"use {CURRENT} or {RECORDED}")
    if requests < 20:
        raise _refused(f"{requests} requests say nothing about percentiles", "send 20 or more")
    if not sizes or any(size < 1 for size in sizes):
        raise _refused("a request has one row or more", "for example rows_per_request=(1, 100)")
    # An infinite tolerance would let everything pass.
    if not 0 <= tolerance < math.inf or not 0 < seconds < math.inf:
        raise _refused("the tolerance or the time is no finite number above 0", "for example 1e-9 and 300")
    return {
        "environment": environment,
        "requests": int(requests),
        "rows_per_request": [int(size) for size in dict.fromkeys(sizes)],
        "tolerance": float(tolerance),
        "timeout_seconds": float(seconds),
    }


def _exercise(
    model: ModelVersion,
    rows: Rows,
    path: Path,
    folder: Path,
    found: Findings,
    settings: Mapping[str, Any],
    deadline: float,
) -> str:
    """All checks in their order; gives what is known of the server."""
    found.figures["size_mib"] = size_of(path) / MIB
    digest = artifact_digest(path)
    if digest != model.artifact_digest:
        raise Stopped(
            "digest",
            f"the files' SHA-256 is {digest[:12]}..., recorded is {model.artifact_digest[:12]}...; nothing of"
            " them was executed",
        )
    check_signature(model, path, found)
    # The folder of the program is no place for modules; the empty name means the folder that this one is in.
    python = [sys.executable, "-P"]
    extra = {"PYTHONPATH": os.pathsep.join(str(Path(each).absolute()) for each in sys.path)}
    if settings["environment"] == RECORDED:
        try:
            built, took = build_environment(
                path,
                folder,
                python=model.environment.get("python"),
                seconds=deadline - time.monotonic(),
            )
        except NotBuilt as error:
            raise Stopped("environment", str(error), outcome=Outcome.ERRORED) from None
        found.passed("environment")
        found.figures["install_seconds"] = took
        # Its own packages only: neither this interpreter's path nor the user's site.
        python, extra = [str(built), "-I"], {}
    reports = folder / "reports"
    reports.mkdir()
    program = Path(shutil.copy(_CHILD, folder / "server.py"))
    command = [*python, str(program), str(path), model.artifact_digest, str(reports)]
    begin = time.monotonic()
    with Guarded("server", command, folder=folder, environment=_environment(extra)) as server:
        ready = _ready(server, reports, found, deadline)
        http = Client(int(ready["port"]), deadline=deadline)
        try:
            if http.ping() != 200:
                raise Stopped("server", "it does not say that it is well")
            found.figures["start_seconds"] = time.monotonic() - begin
            found.passed("server")
            Exercise(model, rows, http, found, settings).run()
        except TimeUp:
            raise Stopped("server", _late(settings), outcome=Outcome.ERRORED) from None
        except OSError as error:
            raise Stopped("server", _gone(server, str(error))) from None
        finally:
            http.close()
        ended = server.stop() or {}
        if ended.get("peak_memory_bytes"):
            found.figures["peak_memory_mib"] = ended["peak_memory_bytes"] / MIB
    return _server_name(ready)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    return {**_ONE_THREAD, **child_environment({**_QUIET, **extra})}


def _ready(server: Guarded, reports: Path, found: Findings, deadline: float) -> dict[str, Any]:
    """Wait until the server listens; what it reports then."""
    while True:
        ended = server.ended
        refused, failed, ready = (
            read_report(reports / f"{each}.json") for each in ("refused", "failed", "ready")
        )
        if refused is not None:
            raise Stopped(
                "digest", "the files changed between the first look and the loading; nothing was executed"
            )
        if failed is not None:
            check = "load" if failed["step"] == "load" else "server"
            raise Stopped(
                check, f"{failed['error']}: {failed['message']}" if failed["message"] else failed["error"]
            )
        if ready is not None:
            found.passed("digest")
            found.passed("load")
            found.ready = ready
            found.figures["load_seconds"] = float(ready["load_seconds"])
            return ready
        if ended is not None:
            raise Stopped("load", _gone(server, f"exit code {ended['exit_code']}"))
        if time.monotonic() > deadline:
            raise Stopped(
                "load", "it was not loaded within the time that the test has", outcome=Outcome.ERRORED
            )
        time.sleep(LOOK_SECONDS)


def _gone(server: Guarded, why: str) -> str:
    ended = server.wait(1.0)
    code = f" with exit code {ended['exit_code']}" if ended else ""
    return f"the process of the model ended{code} ({why})"


def _late(settings: Mapping[str, Any]) -> str:
    return f"no answer within the {settings['timeout_seconds']:g} s that the test has"


def _server_name(ready: Mapping[str, Any]) -> str:
    return f"mlflow {ready['mlflow']}, uvicorn {ready['uvicorn']}, python {ready['python']}"


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.smoke_test", todo=todo)
