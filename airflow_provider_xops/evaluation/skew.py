"""Whether what scoring sees is what training saw: training-serving skew, feature by feature.

For :func:`airflow_provider_xops.evaluation.evaluate.evaluate` and ``xops skew``. A model that was right on
its holdout need not be right on rows of another kind; here both are compared before anybody has a label.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from airflow_provider_xops.errors import ModelError, NotFoundError
from airflow_provider_xops.evaluation import _distances
from airflow_provider_xops.evaluation.plan import SkewPlan
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import resolve_ref
from airflow_provider_xops.records import DatasetRef, ModelVersion, Outcome, ScoringRun, SkewFigure
from airflow_provider_xops.training import selections

__all__ = ["compare", "measure", "scored_rows"]

log = logging.getLogger(__name__)


def measure(lake: Lake, model: ModelVersion, plan: SkewPlan) -> tuple[SkewFigure, ...]:
    """The model's training features against the newest rows that were scored (or ``plan.table``'s).

    See :func:`compare` for the figures, :func:`scored_rows` for the rows.

    :raises NotFoundError: ``not_found.scoring_run`` (nothing was scored yet, and the plan names no table);
        ``not_found.table``.
    :raises ModelError: ``model.training_unknown`` (an adopted model).
    :raises DataError: ``data.selection_changed``: the training rows are not those recorded.

    >>> measure(lake, model, SkewPlan(table="flights", partitions=7))  # doctest: +SKIP
    """
    if model.training is None or not model.features:
        raise ModelError(
            f"the rows and features that {model.ref} was trained on are not known",
            code="model.training_unknown", todo="adopt it again naming them, or train it here",
        )  # fmt: skip
    dataset, partitions = scored_rows(lake, model, plan)
    there = read.schema_of(lake, dataset)
    common = [name for name in model.features if name in there.names]
    training = selections.materialize(lake, model.training, columns=list(model.features))
    scored = read.scan(lake, dataset, partitions=partitions, columns=common).read_all()
    figures = compare(training, scored, model.features, threshold=plan.threshold)
    failed = sorted({figure.feature for figure in figures if figure.outcome is Outcome.FAILED})
    log.info(
        "Compared %d features of %s with %d rows of %s (%s to %s): %s.", len(model.features), model.ref,
        scored.num_rows, dataset, partitions[0], partitions[-1],
        f"skewed are {', '.join(failed)}" if failed else "no feature is skewed",
    )  # fmt: skip
    return figures


def scored_rows(lake: Lake, model: ModelVersion, plan: SkewPlan) -> tuple[DatasetRef, list[str]]:
    """Which rows stand for what scoring sees: a dataset version and its partitions, oldest first.

    With ``plan.table`` the newest partitions of its head. Without, those that models of this name scored
    last, in the newest version they were scored in, as far as they still are what was scored.
    """
    if plan.table is not None:
        dataset = resolve_ref(lake, plan.table)
        names = sorted(read.partitions(lake, dataset))
    else:
        runs = [
            run
            for run in lake.evidence.all(ScoringRun.kind)
            if isinstance(run, ScoringRun) and run.model_name == model.name and not run.purpose
        ]
        if not runs:
            raise NotFoundError(
                f"no model of the name {model.name} has scored anything", code="not_found.scoring_run",
                todo="name the table that will be scored: SkewPlan(table=...)",
            )  # fmt: skip
        newest = max(runs, key=lambda run: (run.recorded_at, run.partition))
        same = [run for run in runs if run.input_table_uuid == newest.input_table_uuid]
        dataset = max((run.dataset_in for run in same), key=lambda ref: ref.version)
        # A partition may have been removed since it was scored, or be another one under the same name.
        there = read.partition_digests(lake, dataset)
        names = sorted({run.partition for run in same if there.get(run.partition) == run.input_digest})
    if not names:
        raise NotFoundError(
            f"{dataset} has no partition to compare with", code="not_found.partition",
            todo="load it first, or name another table",
        )  # fmt: skip
    return dataset, names[-plan.partitions :]


def compare(
    training: pa.Table, scored: pa.Table, features: Sequence[str], *, threshold: float
) -> tuple[SkewFigure, ...]:
    """The figures of each feature, in the order of ``features``.

    ``schema``: the column is missing, or of another kind than at training (only told where it fails; wider
    numbers are no other kind). ``missing_rate``: by how much the share of missing values differs.
    ``unseen_categories``: the share of text values that training never saw. ``psi``: the population stability
    index (Siddiqi 2006) over the training deciles, or over categories; ``p_value`` is that of a chi-squared
    test of the same table. ``ks``: the largest distance between both distribution functions (Kolmogorov and
    Smirnov), for numbers.

    :param threshold: a figure above it fails. 0.2 is the usual limit of the PSI; the others are shares
        between 0 and 1, for which the same number is a large difference.
    :returns: ``no_data`` where one side has too few values for the figure. A p-value decides nothing: with
        enough rows every difference is significant.

    >>> rows = pa.table({"x": [float(n) for n in range(200)]})
    >>> [(each.method, each.outcome.value) for each in compare(rows, rows, ["x"], threshold=0.2)]
    [('missing_rate', 'passed'), ('psi', 'passed'), ('ks', 'passed')]

    What it does not do: of times only the missing values are compared (they always move on), and it sees one
    feature at a time.
    """
    found: list[SkewFigure] = []
    for feature in features:
        if feature not in scored.column_names:
            found.append(_broken(feature, "the column is missing where the model scores"))
            continue
        here, there = training.column(feature), scored.column(feature)
        kinds = _kind(here.type), _kind(there.type)
        if kinds[0] != kinds[1]:
            found.append(
                _broken(feature, f"{kinds[0]} ({here.type}) at training, {kinds[1]} ({there.type}) now")
            )
            continue
        for method, measured in _distances.of(kinds[0], here, there).items():
            found.append(_judged(feature, method, measured, threshold))
    return tuple(found)


def _judged(feature: str, method: str, measured: _distances.Distance, threshold: float) -> SkewFigure:
    if measured.statistic is None:
        outcome = Outcome.NO_DATA
    else:
        outcome = Outcome.FAILED if measured.statistic > threshold else Outcome.PASSED
    return SkewFigure(
        feature=feature, method=method, statistic=measured.statistic, threshold=threshold, outcome=outcome,
        p_value=measured.p_value, message=measured.message,
    )  # fmt: skip


def _broken(feature: str, message: str) -> SkewFigure:
    return SkewFigure(
        feature=feature,
        method="schema",
        statistic=None,
        threshold=None,
        outcome=Outcome.FAILED,
        message=message,
    )


def _kind(kind: Any) -> str:
    if pt.is_dictionary(kind):
        return _kind(kind.value_type)
    if pt.is_boolean(kind):
        return "boolean"
    if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind):
        return "number"
    if pt.is_timestamp(kind) or pt.is_date(kind):
        return "time"
    return "text"
