"""MLflow runs that survive killed tasks: found before they are made, closed when their maker is gone.

For training. A run carries the key of its work as the tag ``xops.key``. A ``create_run`` that got no answer
may have made a run all the same, and a killed process leaves its run RUNNING for good. Both are put right
here: at least one run for each piece of work, none of them left RUNNING.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_xops.errors import Superseded, UnavailableError, XOpsError
from airflow_provider_xops.records import Actor, Selection, digest_of
from airflow_provider_xops.registry.client import KEY_TAG, RegistryClient, quoted

__all__ = [
    "Earlier",
    "RunHandle",
    "close_runs_of",
    "delete_unfinished_models",
    "earlier_attempts",
    "log_run",
    "run",
    "work_key",
]

log = logging.getLogger(__name__)

FENCE_TAG = "xops.fence"
ATTEMPT_TAG = "xops.attempt"
CLOSED_TAG = "xops.closed"
# MLflow's own bounds for one log-batch request.
_PARAMS_A_BATCH, _METRICS_A_BATCH, _TAGS_A_BATCH = 100, 500, 100
_PARAM_LENGTH = 6000
_DATASET_DIGEST_LENGTH = 36


@dataclass(frozen=True, kw_only=True)
class RunHandle:
    """An open run, the key of its work, and when MLflow says that it began (milliseconds since 1970).

    ``closed`` counts the runs that earlier attempts had left open; ``first`` says that no attempt before this
    one had begun a run, so that none can have registered a version.
    """

    run_id: str
    experiment_id: str
    key: str
    started_at_ms: int
    closed: int = 0
    first: bool = False


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Whether an attempt at the same work has begun a run before, and the experiment's id if there is one."""

    experiment_id: str | None
    begun: bool


def work_key(actor: Actor, *fingerprint: Any) -> str:
    """The tag value that identifies one piece of work: who does it, and what it is made from.

    A retry has the same key and finds what the attempt before it left; a task that was cleared after its data
    changed has another.

    :param fingerprint: JSON-serializable: the dataset's digest, the parameters' digest, the code version.
    """
    return digest_of([actor.idempotency_key, *fingerprint])[:40]


def earlier_attempts(client: RegistryClient, *, experiment: str, key: str) -> Earlier:
    """Whether a run of this work was ever made, deleted ones included: the one question before training.

    A version is registered inside a run. Without a run of the key there is no version to be found, and
    neither training nor ``register_model`` need search for one.

    What it does not see: runs in an experiment of another name, and those that ``mlflow gc`` has removed. The
    work is then done again; ``register_model`` still ends in the version that was there.

    :param experiment: its name; it is not made here.
    """
    with client.session(f"searching experiment {experiment} for the work {key}") as mlflow:
        from mlflow.entities import ViewType

        found = mlflow.get_experiment_by_name(experiment)
        if found is None:
            return Earlier(experiment_id=None, begun=False)
        runs = mlflow.search_runs(
            [found.experiment_id],
            f"tags.`{KEY_TAG}` = {quoted(key)}",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        return Earlier(experiment_id=str(found.experiment_id), begun=bool(runs))


@contextlib.contextmanager
def run(
    client: RegistryClient,
    *,
    experiment: str,
    key: str,
    actor: Actor,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    earlier: Earlier | None = None,
) -> Iterator[RunHandle]:
    """A run for the block: FINISHED when the block ends, FAILED when it raises.

    Runs of the same key that a killed attempt left RUNNING are closed first (KILLED, their unfinished models
    deleted).

    :param experiment: its name; made if there is none.
    :param key: from :func:`work_key`.
    :param earlier: what :func:`earlier_attempts` has answered for this work; None: it was not asked.
    :raises Superseded: a newer attempt at the same work has an open run (``superseded.run``).
    """
    experiment_id = (earlier and earlier.experiment_id) or client.experiment_id(experiment)
    # Also where nobody had begun: between that answer and now lies the reading of the data, and a newer
    # attempt may have begun meanwhile.
    closed = _close_leftovers(client, experiment_id, key, actor, keep=None)
    first = earlier is not None and not earlier.begun and not closed
    handle = _start(client, experiment_id, key, actor, run_name, tags, closed=closed, first=first)
    try:
        yield handle
    except BaseException:
        _end(client, handle, "FAILED")
        raise
    with client.session(f"finishing run {handle.run_id}") as mlflow:
        mlflow.set_terminated(handle.run_id, status="FINISHED")
    log.info("Run %s is finished.", handle.run_id)


def log_run(
    client: RegistryClient,
    handle: RunHandle,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    steps: Mapping[str, Sequence[float | None]] | None = None,
    tags: Mapping[str, str] | None = None,
    selections: Mapping[str, Selection] | None = None,
) -> None:
    """Log a run's parameters, metrics, tags and datasets in as few requests as MLflow allows.

    :param metrics: a None or NaN is left out: it was not measured, and 0 would say that it was.
    :param steps: metrics that have several values, one a step from 0: a figure of each fold.
    :param selections: which rows were used for what, by context (``training``, ``holdout``).
    """
    from mlflow.entities import Metric, Param, RunTag

    measured = {
        name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)
    }
    points = [Metric(name, value, handle.started_at_ms, 0) for name, value in measured.items()]
    points += [
        Metric(name, float(value), handle.started_at_ms, step)
        for name, values in (steps or {}).items()
        for step, value in enumerate(values)
        if value is not None and math.isfinite(value)
    ]
    all_tags = {**(tags or {}), **_selection_tags(selections or {})}
    with client.session(f"logging to run {handle.run_id}") as mlflow:
        batches = {
            "params": _chunks([Param(k, str(v)[:_PARAM_LENGTH]) for k, v in params.items()], _PARAMS_A_BATCH),
            "metrics": _chunks(points, _METRICS_A_BATCH),
            "tags": _chunks([RunTag(k, v) for k, v in all_tags.items()], _TAGS_A_BATCH),
        }
        for number in range(max(map(len, batches.values()))):
            part = {name: chunks[number] for name, chunks in batches.items() if number < len(chunks)}
            mlflow.log_batch(handle.run_id, **part)
        if selections:
            mlflow.log_inputs(
                handle.run_id, datasets=[_dataset_input(name, s) for name, s in selections.items()]
            )
    log.info(
        "Logged %d parameters, %d metrics and %d datasets to run %s.",
        len(params),
        len(points),
        len(selections or {}),
        handle.run_id,
    )


def close_runs_of(client: RegistryClient, experiment_id: str, key: str, *, finished: str | None) -> None:
    """Close what is still open of work that is done: ``finished`` as FINISHED, any other run as KILLED."""
    query = f"tags.`{KEY_TAG}` = {quoted(key)} and attributes.status = 'RUNNING'"
    with client.session("closing the runs of finished work") as mlflow:
        for found in mlflow.search_runs([experiment_id], query):
            run_id = found.info.run_id
            delete_unfinished_models(mlflow, experiment_id, run_id)
            mlflow.set_terminated(run_id, status="FINISHED" if run_id == finished else "KILLED")
            log.info("Closed run %s: its model is registered, its maker was gone.", run_id)


def _start(
    client: RegistryClient,
    experiment_id: str,
    key: str,
    actor: Actor,
    run_name: str | None,
    tags: Mapping[str, str] | None,
    *,
    closed: int,
    first: bool,
) -> RunHandle:
    attempt = uuid.uuid4().hex
    producer = actor.producer
    origin = {
        "xops.dag_id": producer.dag_id,
        "xops.run_id": producer.run_id,
        "xops.task_id": producer.task_id,
        "xops.produced_by": producer.id,
    }
    all_tags = {
        **{name: value for name, value in origin.items() if value},
        **(tags or {}),
        KEY_TAG: key,
        FENCE_TAG: str(actor.fence),
        ATTEMPT_TAG: attempt,
    }
    try:
        with client.session("starting a run", repeat=False) as mlflow:
            made = mlflow.create_run(experiment_id, run_name=run_name, tags=all_tags)
        run_id = str(made.info.run_id)
    except UnavailableError:
        with client.session("starting a run") as mlflow:
            made = mlflow.create_run(experiment_id, run_name=run_name, tags=all_tags)
        run_id = str(made.info.run_id)
        # The request that got no answer may have made a run too: the twin has the same attempt.
        closed += _close_leftovers(client, experiment_id, key, actor, keep=run_id, attempt=attempt)
    log.info("Started run %s (%s).", run_id, client.run_url(run_id, experiment_id))
    return RunHandle(
        run_id=run_id,
        experiment_id=experiment_id,
        key=key,
        started_at_ms=int(made.info.start_time),
        closed=closed,
        first=first,
    )


def _close_leftovers(
    client: RegistryClient,
    experiment_id: str,
    key: str,
    actor: Actor,
    *,
    keep: str | None,
    attempt: str | None = None,
) -> int:
    query = f"tags.`{KEY_TAG}` = {quoted(key)} and attributes.status = 'RUNNING'"
    if attempt is not None:
        query += f" and tags.`{ATTEMPT_TAG}` = '{attempt}'"
    with client.session("searching for leftover runs of the same work") as mlflow:
        open_runs = [
            found for found in mlflow.search_runs([experiment_id], query) if found.info.run_id != keep
        ]
        for found in open_runs:
            if int(found.data.tags.get(FENCE_TAG, "0")) > actor.fence:
                raise Superseded(
                    f"run {found.info.run_id} belongs to a newer attempt at the same work",
                    code="superseded.run",
                    why="this attempt was given up and started again elsewhere",
                    todo="nothing: the newer attempt does the work",
                )
        for found in open_runs:
            delete_unfinished_models(mlflow, experiment_id, found.info.run_id)
            mlflow.set_tag(
                found.info.run_id, CLOSED_TAG, "left open by an attempt that ended without closing it"
            )
            mlflow.set_terminated(found.info.run_id, status="KILLED")
            log.info("Closed run %s, which an earlier attempt left open.", found.info.run_id)
    return len(open_runs)


def delete_unfinished_models(mlflow: Any, experiment_id: str, run_id: str) -> None:
    for model in mlflow.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"):
        if str(model.status) in ("PENDING", "LoggedModelStatus.PENDING"):
            mlflow.delete_logged_model(model.model_id)
            log.info("Deleted logged model %s, whose upload never finished.", model.model_id)


def _end(client: RegistryClient, handle: RunHandle, status: str) -> None:
    """Close the run after an error; if MLflow is gone too, the first error matters more."""
    try:
        with client.session(f"closing run {handle.run_id}") as mlflow:
            delete_unfinished_models(mlflow, handle.experiment_id, handle.run_id)
            mlflow.set_terminated(handle.run_id, status=status)
        log.info("Run %s is closed as %s.", handle.run_id, status)
    except XOpsError as error:
        log.warning("Run %s stays open until the next attempt closes it: %s", handle.run_id, error)


def _selection_tags(selections: Mapping[str, Selection]) -> dict[str, str]:
    return {
        f"xops.{context}.{name}": value
        for context, chosen in selections.items()
        for name, value in (
            ("dataset", str(chosen.dataset)),
            ("table_uuid", chosen.dataset.table_uuid),
            ("digest", chosen.digest),
            ("rows", str(chosen.rows)),
        )
    }


def _dataset_input(context: str, chosen: Selection) -> Any:
    """What MLflow shows under Datasets: table, version and the beginning of *our* digest (MLflow's own reads
    10,000 rows)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = f"v{chosen.dataset.version}-{chosen.digest}"[:_DATASET_DIGEST_LENGTH]
    source = {
        "lake_id": chosen.dataset.lake_id,
        "table_uuid": chosen.dataset.table_uuid,
        "version": chosen.dataset.version,
    }
    dataset = Dataset(
        name=chosen.dataset.table,
        digest=digest,
        source_type="xops",
        source=json.dumps(source, sort_keys=True),
        profile=json.dumps({"num_rows": chosen.rows, "partitions": len(chosen.partitions)}),
    )
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", context)])


def _chunks(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
