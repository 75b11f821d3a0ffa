"""Workers of a tuning study in processes of their own, which a test may kill.

Each is forked from one process that has imported everything, so it begins within a fraction of a second.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.processes import CONTEXT

SLOW = "tests.integration.tuning_worker:Slow"
AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


class Slow:
    """Predicts ``x`` everywhere; says in a folder that it is being fitted, and takes its time."""

    def __init__(self, x: float, folder: str = "", seconds: float = 0.0) -> None:
        self.x, self.folder, self.seconds = x, folder, seconds

    def fit(self, rows: Any, target: Any) -> None:
        if self.folder:
            marker = Path(self.folder) / f"{os.getpid()}-{time.monotonic_ns()}"
            marker.write_text(str(self.x))
        time.sleep(self.seconds)

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), self.x)


class Dies(Slow):
    """Takes its whole process with it for every ``x`` above a half."""

    def fit(self, rows: Any, target: Any) -> None:
        super().fit(rows, target)
        if self.x > 0.5:
            os.kill(os.getpid(), signal.SIGKILL)


class KilledOnce(Slow):
    """Its task is ended from outside while its third model is fitted; afterwards it goes on."""

    def fit(self, rows: Any, target: Any) -> None:
        super().fit(rows, target)
        if len(list(Path(self.folder).glob("*-*"))) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)


def start(
    arguments: dict[str, Any],
    *,
    lake: str,
    mlflow: str,
    worker: str,
    fence: int,
    answer: Path,
    step: int = -1,
) -> Any:
    """Start a worker; it writes its record to ``answer``. With ``step``, it dies right before that step."""
    process = CONTEXT.Process(
        target=work, args=(json.dumps(arguments), lake, mlflow, worker, fence, str(answer), step)
    )
    process.start()
    return process


def work(
    arguments: str, lake_uri: str, mlflow_url: str, worker: str, fence: int, answer: str, step: int
) -> None:
    """One attempt of one worker."""
    from airflow_provider_xops.lake.lake import open_lake
    from airflow_provider_xops.records import Actor, DatasetRef
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.settings import LakeSettings, MlflowSettings
    from airflow_provider_xops.training.tuning.study import tune

    given = json.loads(arguments)
    given["dataset"] = DatasetRef(**given["dataset"])
    done = count_steps(step)
    status = 1
    try:
        record = tune(
            open_lake(LakeSettings(lake_uri)),
            RegistryClient(MlflowSettings(mlflow_url, timeout_s=30)),
            actor=Actor.user("tester", key=worker, fence=fence),
            as_of=AS_OF,
            **given,
        )
        Path(answer).write_text(json.dumps({"record": record.to_json(), "steps": done}))
        status = 0
    except BaseException as error:
        Path(answer).write_text(json.dumps({"error": f"{type(error).__name__}: {error}", "steps": done}))
    finally:
        sys.stdout.flush()
        os._exit(status)


def count_steps(last: int) -> list[str]:
    """From now on, list each step that changes something outside, and die right before ``last``."""
    from mlflow import MlflowClient
    from optuna.storages import RDBStorage

    from airflow_provider_xops.lake.evidence import EvidenceStore

    done: list[str] = []

    def watch(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if len(done) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(name)
            return original(*args, **kwargs)

        setattr(owner, name, watched)

    for name in ("create_run", "log_batch", "log_inputs", "set_tag", "set_terminated", "update_run"):
        watch(MlflowClient, name)
    for name in (
        "create_new_study", "create_new_trial", "set_trial_param", "set_trial_state_values",
        "record_heartbeat", "set_trial_intermediate_value", "set_trial_user_attr",
    ):  # fmt: skip
        watch(RDBStorage, name)
    watch(EvidenceStore, "put")
    return done


def wait_for_marker(folder: Path, process: Any, *, count: int = 1, timeout_s: float = 60) -> None:
    """Return when a worker has begun its ``count``-th fit."""
    deadline = time.monotonic() + timeout_s
    while len(list(folder.glob(f"{process.pid}-*"))) < count:
        assert process.is_alive(), "the worker ended before"
        assert time.monotonic() < deadline, f"the worker fitted nothing in {timeout_s} s"
        time.sleep(0.02)
