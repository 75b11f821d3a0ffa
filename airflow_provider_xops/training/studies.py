"""A search's best parameters in the place of parameters that somebody wrote down.

For :func:`airflow_provider_xops.training.fit.train` with ``tuning``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_xops.errors import ArgumentError, TrainingError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import DatasetRef, TuningStudy
from airflow_provider_xops.training.functions import TrainingFunction
from airflow_provider_xops.training.splits import Split, TimeSplit

__all__ = ["one_study", "params_of_study", "read_of"]


def read_of(lake: Lake, dataset: DatasetRef, partitions: Sequence[str] | None) -> list[Any]:
    """What is read of a version, for a search and a training to compare: first partition, last, how many."""
    names = sorted(read.partitions(lake, dataset) if partitions is None else set(partitions))
    return [names[0], names[-1], len(names)] if names else []


def params_of_study(
    study: TuningStudy,
    params: Mapping[str, Any],
    *,
    estimator: str | TrainingFunction,
    target: str,
    dataset: DatasetRef,
    split: Split,
    rows: Sequence[Any] = (),
) -> dict[str, Any]:
    """What the study's best trial was made with: its best parameters, and those that were the same for all.

    :param params: given beside the study; they may repeat its parameters or add to them.
    :param dataset: what this training reads. :param split: how it parts that.
    :param rows: which partitions, as :func:`read_of` says it; empty: not compared.
    :raises TrainingError: ``training.tuning``: no trial was completed.
    :raises ArgumentError: ``argument.tuning``: it searched another estimator or target, or on rows that may
        be in this training's holdout, or ``params`` gives one of its parameters another value.
    """
    if study.best_trial is None or study.best_value is None:
        raise TrainingError(
            f"study {study.study} has no best parameters", code="training.tuning",
            why="none of its trials was completed",
            todo="look at the trials' runs in MLflow, and search again",
        )  # fmt: skip
    name = estimator if isinstance(estimator, str) else estimator.name
    for what, mine in (("estimator", name), ("target", target)):
        theirs = study.search.get(what)
        if theirs is not None and theirs != mine:
            raise ArgumentError(
                f"study {study.study} searched for the {what} {theirs}", code="argument.tuning",
                why=f"this training has the {what} {mine}", todo="give both tasks the same",
            )  # fmt: skip
    _refuse_seen_holdout(study, dataset, split, rows)
    found = {**study.search.get("params", {}), **study.best_params}
    other = sorted(key for key, value in params.items() if found.get(key, value) != value)
    if other:
        raise ArgumentError(
            f"estimator_params gives {', '.join(other)} another value than study {study.study}",
            code="argument.tuning", why="the model would not be the one that was judged best",
            todo="leave it out of estimator_params, or leave out tuning",
        )  # fmt: skip
    return {**params, **found}


def _refuse_seen_holdout(study: TuningStudy, dataset: DatasetRef, split: Split, rows: Sequence[Any]) -> None:
    """Parameters that were chosen on rows of the holdout make its figures too good."""
    theirs = study.search.get("split")
    if theirs != split.to_json():
        raise ArgumentError(
            f"study {study.study} has kept other rows back than this training", code="argument.tuning",
            why="rows of this training's holdout may have taken part in the search",
            todo="give both tasks the same split",
        )  # fmt: skip
    # By time, a later version holds out later rows. By chance and by group it draws anew.
    if split.kind != TimeSplit.kind and study.dataset != dataset:
        raise ArgumentError(
            f"study {study.study} searched {study.dataset}, this training reads {dataset}",
            code="argument.tuning",
            why=f"a {split.kind} split of another version holds out other rows, which it may have seen",
            todo="search again on this version, train on the study's, or split by time",
        )  # fmt: skip
    searched = study.search.get("read")
    if not searched or not rows:
        return
    # A split by time holds out the last of what it reads: the search must not have read further.
    further = searched[1] > rows[1] if split.kind == TimeSplit.kind else list(searched) != list(rows)
    if further:
        raise ArgumentError(
            f"study {study.study} searched the partitions {searched[0]} to {searched[1]}, this training reads"
            f" {rows[0]} to {rows[1]}", code="argument.tuning",
            why="rows of this training's holdout may have taken part in the search",
            todo="give both tasks the same partition",
        )  # fmt: skip


def one_study(studies: Sequence[TuningStudy]) -> TuningStudy:
    """Of what the workers of one study gave, the record that knows of the most trials.

    :raises ArgumentError: ``argument.tuning``: none, or records of several studies.
    """
    names = sorted({study.study for study in studies})
    if len(names) != 1:
        raise ArgumentError(
            f"tuning holds {len(names)} studies", code="argument.tuning",
            why="a model is trained with the parameters of one",
            todo="pass the output of one tuning task; its mapped instances share a study",
        )  # fmt: skip
    return max(studies, key=lambda each: (sum(each.trials.values()), each.record_id))
