"""The search: trials judged by cross-validation on the training rows, until as many have ended as were asked.

For the tuning operator and notebooks. :func:`tune` chooses the rows as training would, judges each proposal
of Optuna by :func:`~airflow_provider_xops.training.cross_validation.cross_validate`, and records the best. It
can be killed at any instant and run again: it goes on where it was. Without a database the trials are read
back from the study's runs in MLflow; with one, several workers share the study.
"""

from __future__ import annotations

import difflib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from airflow_provider_xops.errors import ArgumentError, Superseded, TrainingError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, TuningStudy, digest_of
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.training.fit import features_of
from airflow_provider_xops.training.folds import Folds
from airflow_provider_xops.training.metrics import METRICS, Task
from airflow_provider_xops.training.recipe import Recipe, json_params
from airflow_provider_xops.training.splits import Split, split_from
from airflow_provider_xops.training.studies import read_of
from airflow_provider_xops.training.tuning import samplers
from airflow_provider_xops.training.tuning._objective import Objective, folds_of
from airflow_provider_xops.training.tuning._worker import Worker
from airflow_provider_xops.training.tuning.logbook import Logbook
from airflow_provider_xops.training.tuning.space import Space, space_from
from airflow_provider_xops.training.tuning.storage import Shelf, open_shelf, quiet_optuna, storage_answers
from airflow_provider_xops.training.tuning.trials import Board, Ended, best_of, counts_of
from airflow_provider_xops.training.weights import class_weights_from
from airflow_provider_xops.usercode import reference_of, source_digest

__all__ = ["tune"]

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 20
# Optuna's tables have room for 512 characters.
NAME_LENGTH = 400


def tune(
    lake: Lake,
    client: RegistryClient,
    *,
    dataset: DatasetRef,
    estimator: str,
    target: str,
    split: Split | Mapping[str, Any],
    model_name: str,
    space: Space | Mapping[str, Any],
    metric: str,
    cross_validation: Folds | Mapping[str, Any] | None = None,
    partitions: Sequence[str] | None = None,
    params: Mapping[str, Any] | None = None,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    sample: float | None = None,
    sample_weight: str | None = None,
    class_weight: str | Mapping[Any, float] | None = None,
    task: str | None = None,
    seed: int = 0,
    trials: int = 50,
    timeout_seconds: float | None = None,
    sampler: str = "tpe",
    pruner: str = "median",
    storage: str | None = None,
    study: str | None = None,
    experiment: str | None = None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    actor: Actor,
    as_of: datetime,
    clock: Callable[[], float] = time.monotonic,
) -> TuningStudy:
    """Search the space for the estimator's best arguments, by cross-validation on the training rows.

    :param space: what is searched, see :func:`~airflow_provider_xops.training.tuning.space.space_from`.
    :param metric: the figure whose mean over the folds is made best; its direction is known.
    :param cross_validation: the folds, see :func:`~airflow_provider_xops.training.folds.folds_from`; None:
        five that part the rows as ``split`` does (in time, by group, at random).
    :param params: arguments of the estimator that are the same in every trial.
    :param sample: judge on at most so many training rows (below 1: that fraction).
    :param trials: how many are tried, over all workers; a grid may have fewer.
    :param timeout_seconds: this worker begins no trial after so many seconds of trials, those of its earlier
        attempts included, and ends the one at hand after its fold.
    :param sampler: ``tpe``, ``random`` or ``grid`` (then the space's float ranges need steps).
    :param pruner: ``median``, ``hyperband`` or ``none``.
    :param storage: SQLAlchemy URL of a PostgreSQL or SQLite database that other workers may share; None: the
        study is kept in MLflow alone, and has one worker.
    :param study: its name. The same name goes on with the study it named, as long as the data, the code and
        the search are the same; None: one of the actor's own.
    :param experiment: the MLflow experiment; None: the model's name.
    :param heartbeat_seconds: a trial whose worker is silent for three times as long is tried again.
    :param clock: seconds that only rise, for the time budget.
    :returns: the record; the same for every worker of a study.
    :raises TrainingError: ``training.tuning_failed``: the first five trials failed, or none was complete;
        ``training.tuning_time``: time ran out before one was; and what choosing rows raises.
    :raises ArgumentError: ``argument.space``, ``argument.metric``, ``argument.sampler``, ``argument.pruner``,
        ``argument.trials``, ``argument.storage``, ``argument.folds``, ``argument.extra_missing``.
    :raises UnavailableError: MLflow or the database did not answer; trying again continues the study.
    :raises Superseded: a newer attempt at the same work has taken over.

    >>> tune(lake, client, dataset=ref, estimator="sklearn.linear_model:LogisticRegression", target="late",
    ...      split={"kind": "random"}, model_name="late", space={"C": {"float": [0.01, 10], "log": True}},
    ...      metric="roc_auc", trials=20, actor=actor, as_of=now).best_params  # doctest: +SKIP
    {'C': 0.37}

    What it does not do: it registers no model, and its best value is no estimate of what the model will do:
    the best of many trials is partly the luckiest. Train with the best parameters and judge on the holdout.
    """
    samplers.optuna_module()
    samplers.check_names(sampler, pruner)
    _check_numbers(trials, timeout_seconds, heartbeat_seconds)
    _check_metric(metric)
    reference, rule, searched = reference_of(estimator), split_from(split), space_from(space)
    fixed = json_params(params or {})
    _check_fixed(fixed, searched)
    folds = folds_of(cross_validation, rule, target=target, seed=seed)
    columns = features_of(
        lake, dataset, features, target=target, drop=drop, split=rule, folds=folds,
        sample_weight=sample_weight,
    )  # fmt: skip
    recipe = Recipe(
        estimator=reference, features=columns, target=target, params=fixed, seed=seed, task=_task(task),
        sample_weight=sample_weight, class_weight=class_weights_from(class_weight), folds=folds,
    )  # fmt: skip
    search = {
        **recipe.settings(), "split": rule.to_json(), "sample": sample,
        "space": searched.to_json(), "metric": metric, "sampler": sampler, "pruner": pruner,
        "read": read_of(lake, dataset, partitions),
    }  # fmt: skip
    name = str(study or actor.idempotency_key)
    content = read.content_digest(lake, dataset, partitions)
    work = ["tuning", name, model_name, dataset.table_uuid, content, search, source_digest(reference)]
    key = digest_of(work)[:40]
    grid = samplers.grid_of(searched, seed=seed) if sampler == "grid" else None
    wanted = trials if grid is None else min(trials, len(grid))
    objective = Objective(
        lake=lake, dataset=dataset, partitions=partitions, recipe=recipe, split=rule, sample=sample,
        metric=metric,
    )  # fmt: skip
    full_name = f"{name[:NAME_LENGTH]}-{key[:12]}"
    logbook = Logbook(client, experiment=experiment or model_name, key=key)
    with ExitStack() as open_things:
        open_things.enter_context(quiet_optuna())
        shelf = open_things.enter_context(open_shelf(storage, heartbeat_seconds=heartbeat_seconds))
        board = Board(
            _optuna_study(shelf, full_name, metric, pruner, folds), shelf, space=searched, sampler=sampler,
            seed=seed, grid=grid, worker=actor.idempotency_key, fence=actor.fence,
        )  # fmt: skip
        with board.locked():
            tags = {"xops.study": full_name, "xops.dataset": str(dataset)}
            logbook.open(name=full_name, actor=actor, tags=tags, fenced=not shelf.shared)
        if not shelf.shared:
            board.add(logbook.read())
        worker = Worker(
            board=board, logbook=logbook, objective=objective, metric=metric, wanted=wanted,
            timeout_seconds=timeout_seconds, heartbeat_seconds=heartbeat_seconds, clock=clock,
        )  # fmt: skip
        try:
            worker.work()
            with board.locked():
                ended = board.ended()
                record = _record(
                    ended, study=full_name, model_name=model_name, dataset=dataset, search=search,
                    metric=metric, fixed=fixed, wanted=wanted, logbook=logbook, actor=actor, as_of=as_of,
                )  # fmt: skip
                _log_result(logbook, record, ended, objective)
        except BaseException as error:
            if not isinstance(error, Superseded):
                worker.leave(failed=isinstance(error, Exception))
            raise
    lake.evidence.put(record)
    found = lake.evidence.get(TuningStudy.kind, record.record_id)
    assert isinstance(found, TuningStudy)
    return found


def _optuna_study(shelf: Shelf, name: str, metric: str, pruner: str, folds: Folds) -> Any:
    optuna = samplers.optuna_module()
    with storage_answers():
        return optuna.create_study(
            storage=shelf.optuna_storage,
            study_name=name,
            direction="maximize" if METRICS[metric].greater_is_better else "minimize",
            pruner=samplers.pruner_of(pruner, folds=folds.folds),
            load_if_exists=True,
        )


def _record(
    ended: Sequence[Ended],
    *,
    study: str,
    model_name: str,
    dataset: DatasetRef,
    search: dict[str, Any],
    metric: str,
    fixed: Mapping[str, Any],
    wanted: int,
    logbook: Logbook,
    actor: Actor,
    as_of: datetime,
) -> TuningStudy:
    greater = METRICS[metric].greater_is_better
    best = best_of(ended, greater_is_better=greater)
    if best is None:
        in_time = len(ended) >= wanted
        reason = next((each.reason for each in ended if each.reason), "")
        raise TrainingError(
            f"no trial of study {study} was complete",
            code="training.tuning_failed" if in_time else "training.tuning_time",
            why=reason or f"{len(ended)} of {wanted} trials had ended when the time was over",
            todo="correct the space or the estimator's arguments" if in_time else "give it more seconds",
            context={"trials": counts_of(ended)},
        )
    return TuningStudy(
        recorded_at=as_of,
        produced_by=actor.producer,
        study=study,
        model_name=model_name,
        dataset=dataset,
        search=search,
        search_digest=digest_of(search),
        metric=metric,
        greater_is_better=greater,
        trials=counts_of(ended),
        best_value=best.value,
        best_params={**fixed, **best.params},
        best_trial=best.number,
        stopped="time" if len(ended) < wanted else "",
        seconds=sum(each.seconds for each in ended),
        parent_run_id=logbook.run_id,
        experiment_id=logbook.experiment_id,
    )


def _log_result(logbook: Logbook, record: TuningStudy, ended: Sequence[Ended], objective: Objective) -> None:
    shown = {name: value for name, value in record.search.items() if name not in ("params", "features")}
    plain = {name: value if isinstance(value, str) else json.dumps(value) for name, value in shown.items()}
    logbook.finish(
        ended,
        result=record.record_id,
        params={f"xops.{name}": value for name, value in plain.items()},
        metrics={
            f"best_{record.metric}_mean": record.best_value,
            **{f"trials_{state}": float(count) for state, count in record.trials.items()},
        },
        tags={
            "xops.best_trial": str(record.best_trial),
            **{f"xops.best.{name}": json.dumps(value)[:5000] for name, value in record.best_params.items()},
        },
        selections=lambda: objective.selections,
        metric=record.metric,
    )
    log.info(
        "Study %s: %s; best mean %s %.6g by trial %s with %s.", record.study,
        ", ".join(f"{count} {state}" for state, count in record.trials.items()), record.metric,
        record.best_value, record.best_trial, json.dumps(record.best_params, sort_keys=True),
    )  # fmt: skip


def _check_numbers(trials: int, timeout_seconds: float | None, heartbeat_seconds: int) -> None:
    if trials < 1:
        raise ArgumentError(f"{trials} trials are impossible", code="argument.trials", todo="try at least 1")
    for what, seconds in (("timeout_seconds", timeout_seconds), ("heartbeat_seconds", heartbeat_seconds)):
        if seconds is not None and not seconds > 0:
            raise ArgumentError(f"{what} is {seconds}", code=f"argument.{what}", todo="give a number above 0")


def _task(given: str | None) -> Task | None:
    if given is None:
        return None
    if given not in set(Task):
        raise ArgumentError(
            f"there is no task {given!r}", code="argument.task", todo=f"use one of {', '.join(Task)}"
        )
    return Task(given)


def _check_fixed(fixed: Mapping[str, Any], space: Space) -> None:
    both = sorted(set(fixed) & set(space.parameters))
    if both:
        raise ArgumentError(
            f"{', '.join(both)} cannot be fixed and searched at once", code="argument.space",
            todo="take it out of the estimator's arguments, or out of the space",
        )  # fmt: skip


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        near = difflib.get_close_matches(metric, METRICS, n=1)
        raise ArgumentError(
            f"there is no metric {metric!r}", code="argument.metric",
            why=f"did you mean {near[0]!r}?" if near else "", todo=f"use one of {', '.join(METRICS)}",
        )  # fmt: skip
