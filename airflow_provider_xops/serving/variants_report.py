"""How the variants of a model compare in service, by what the prediction log has of them.

For ``xops variants`` and notebooks. Of each version and its part (primary, canary, shadow): requests, errors,
how long it took, its mean score, how often a shadow agrees with the answer that was given; and, where labels
have been joined, the metrics of the model with their intervals.

Rows of one request are not independent: the mean score and the agreement are ratios over requests, and their
standard errors those of a ratio (Cochran 1977, *Sampling Techniques*, section 6.3). The error rate's interval
is Wilson's (1927).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.evaluation.statistics import intervals
from airflow_provider_xops.evaluation.statistics.confidence import wilson
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake._delta import read_errors
from airflow_provider_xops.lake.duckdb_box import open_box, sql_text
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import DatasetRef, MetricFigure, ServingSession, VariantRole
from airflow_provider_xops.registry.loading import get_model
from airflow_provider_xops.training.frames import target_values
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = ["VariantFigures", "VariantsReport", "log_table_of", "variants"]

log = logging.getLogger(__name__)

# Fewer say too little about how they vary.
LEAST_REQUESTS = 10
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_ORDER = {role.value: place for place, role in enumerate(VariantRole)}


@dataclass(frozen=True, kw_only=True)
class VariantFigures:
    """One version in one part.

    :param requests: with an answer or an error. :param rows: predictions. :param errors: failed requests.
    :param share: of the callers' requests; None for a shadow, which has none.
    :param error_rate: failed requests by requests.
    :param p50_ms: half of the predictions of a request took at most so long, in milliseconds; ``p99_ms``: 99
        in 100.
    :param mean: mean score, or mean predicted number where the model gives no score; None without any.
    :param agreement: of a shadow: share of its rows with the class that the caller got; None for numbers.
    :param difference: of a shadow: mean distance from the score (or number) that the caller got.
    :param compared: rows of a shadow whose answer is in the log.
    :param metrics: of the labeled rows; empty without labels.
    """

    version: int
    variant: VariantRole
    requests: int
    rows: int
    errors: int
    share: float | None
    error_rate: MetricFigure
    p50_ms: float | None
    p99_ms: float | None
    mean: MetricFigure | None
    agreement: MetricFigure | None = None
    difference: MetricFigure | None = None
    compared: int = 0
    metrics: tuple[MetricFigure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VariantsReport:
    """The variants of one alias over some days of the log.

    :param log: the version of the log that was read. :param days: its partitions that were.
    :param labels: the version of the labeled predictions; None: none were asked for.
    """

    model: str
    alias: str
    log: DatasetRef
    days: tuple[str, ...]
    labels: DatasetRef | None
    variants: tuple[VariantFigures, ...]


def variants(
    lake: Lake,
    *,
    model: str,
    alias: str = "champion",
    table: str | None = None,
    since: str | None = None,
    until: str | None = None,
    labeled: str | None = None,
    label: str = "label",
    metrics: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> VariantsReport:
    """What the log says of each variant of a model's alias.

    :param table: the log; default: the one of the newest serving session of the alias.
    :param since: first day (``2026-01-15``, UTC), ``until`` the last; None: all of the log.
    :param labeled: a table of labeled predictions, as joining labels makes it; ``label`` its column of them.
    :param metrics: of the labeled rows; None: all of the task.
    :param confidence: of the intervals. :param seed: of the bootstrap.
    :raises NotFoundError: ``not_found.prediction_log``: no server of the alias keeps a log, or nobody made
        one yet; ``not_found.table``.
    :raises ArgumentError: ``argument.variants``: the table is no prediction log, the labeled one has no such
        labels, or a day is none.

    >>> variants(lake, model="delay").variants[0].error_rate.value  # doctest: +SKIP
    0.0

    What it does not do: it does not say that one variant is better; canary and primary answer different
    requests. A comparison on the same rows is what a shadow, or an evaluation, is for.
    """
    if not 0.5 <= confidence < 1:
        raise ArgumentError(
            f"a confidence of {confidence}", code="argument.variants", todo="give 0.95, for example"
        )
    given = [day for day in (since, until) if day is not None]
    if not all(_DAY.fullmatch(str(day)) for day in given) or given != sorted(given):
        # They are compared as text: one that is written otherwise would silently choose other days.
        raise ArgumentError(
            f"these are no days from first to last: {', '.join(str(day)[:20] for day in given)}",
            code="argument.variants", todo="write them like 2026-01-15",
        )  # fmt: skip
    ref = head(lake, table or log_table_of(lake, model, alias))
    days = _days(lake, ref, since, until)
    figures = _Figures(lake, ref, days, model, alias, confidence)
    found = figures.all()
    labels = head(lake, labeled) if labeled else None
    if labels is not None:
        wanted = _days(lake, labels, since, until)
        found = _with_metrics(
            lake, labels, wanted, found, model=model, alias=alias, label=label, metrics=metrics,
            confidence=confidence, seed=seed,
        )  # fmt: skip
    log.info("%d variants of %s@%s over %d days of %s.", len(found), model, alias, len(days), ref)
    return VariantsReport(
        model=model, alias=alias, log=ref, days=tuple(days), labels=labels, variants=tuple(found)
    )


def log_table_of(lake: Lake, model: str, alias: str) -> str:
    """The log of the newest serving session of an alias that keeps one.

    :raises NotFoundError: ``not_found.prediction_log``.
    """
    sessions = [
        each
        for each in lake.evidence.all(ServingSession.kind)
        if isinstance(each, ServingSession) and (each.model.name, each.alias) == (model, alias)
    ]
    tables = [each.log_table for each in sorted(sessions, key=lambda one: one.started_at) if each.log_table]
    if not tables:
        raise NotFoundError(
            f"no server of {model}@{alias} keeps a prediction log",
            code="not_found.prediction_log",
            why=f"{len(sessions)} serving sessions of it are on record, none with a log",
            todo="serve it with a prediction log, or name the table",
        )
    return tables[-1]


class _Figures:
    """The figures of a log, computed by DuckDB over its files."""

    def __init__(
        self, lake: Lake, ref: DatasetRef, days: Sequence[str], model: str, alias: str, confidence: float
    ) -> None:
        self._lake, self._ref, self._days, self._confidence = lake, ref, days, confidence
        self._where = f"model_name = {sql_text(model)} AND alias = {sql_text(alias)}"
        schema = read.schema_of(lake, ref)
        missing = [name for name in ("request_id", "variant", "shadow_of") if name not in schema.names]
        if missing:
            raise ArgumentError(
                f"{ref.table} is no prediction log",
                code="argument.variants",
                why=f"it has no column {', '.join(missing)}",
                todo="name the table that a server writes its predictions to",
            )
        self._predicted = "prediction" in schema.names  # else only requests that failed are in it so far
        kind = schema.field("prediction").type if self._predicted else pa.float64()
        self._classes = not pa.types.is_floating(kind)
        self._number = "TRY_CAST(prediction AS DOUBLE)" if not pa.types.is_string(kind) else "NULL::DOUBLE"

    def all(self) -> list[VariantFigures]:
        """Each variant's figures, the primaries first."""
        if not self._days:
            return []
        with (
            self._lake.storage.scratch() as folder,
            open_box(folder=folder) as box,
            read_errors(f"cannot read {self._ref}"),
        ):
            box.register("everything", read.arrow_dataset(self._lake, self._ref, list(self._days)))
            none = "" if self._predicted else ", NULL::DOUBLE AS prediction"
            box.execute(f"CREATE VIEW logged AS SELECT *{none} FROM everything WHERE {self._where}")
            counts = box.execute(
                """
                SELECT model_version, variant, count(*) FILTER (prediction_id = request_id) AS requests,
                    count(*) FILTER (error IS NULL) AS row_count, count(error) AS errors,
                    quantile_cont(duration_ms, [0.5, 0.99])
                        FILTER (prediction_id = request_id AND error IS NULL) AS times
                FROM logged GROUP BY ALL
                """
            ).fetchall()
            scores = {"score": "score", "prediction": self._number}
            means = {name: self._means(box, name, column) for name, column in scores.items()}
            agreement = self._shadows(box, "agreement", self._same()) if self._classes else {}
            difference = self._shadows(box, "score_difference", "abs(s.score - a.score)")
            numbers = (
                {} if self._classes
                else self._shadows(box, "difference", "abs(s.prediction - a.prediction)")
            )  # fmt: skip
        answered = sum(count[2] for count in counts if count[1] != VariantRole.SHADOW.value)
        found = []
        for version, variant, requests, rows, errors, times in counts:
            key = (version, variant)
            shadow = variant == VariantRole.SHADOW.value
            apart = difference.get(key) or numbers.get(key)
            found.append(
                VariantFigures(
                    version=version, variant=VariantRole(variant), requests=requests, rows=rows,
                    errors=errors, share=None if shadow or not answered else requests / answered,
                    error_rate=self._rate(errors, requests),
                    p50_ms=times[0] if times else None, p99_ms=times[1] if times else None,
                    mean=means["score"].get(key) or means["prediction"].get(key),
                    agreement=agreement.get(key), difference=apart,
                    compared=max((each.rows for each in (agreement.get(key), apart) if each), default=0),
                )
            )  # fmt: skip
        return sorted(found, key=lambda each: (_ORDER[each.variant.value], each.version))

    def _same(self) -> str:
        return "CASE WHEN s.prediction = a.prediction THEN 1.0 ELSE 0.0 END"

    def _means(self, box: Any, name: str, column: str) -> dict[tuple[int, str], MetricFigure]:
        """The mean of a column by variant, over the rows that have it."""
        return self._ratios(
            box, f"mean_{name}",
            f"""
            SELECT model_version, variant, request_id, {column} AS value FROM logged WHERE error IS NULL
            """,
        )  # fmt: skip

    def _shadows(self, box: Any, name: str, value: str) -> dict[tuple[int, str], MetricFigure]:
        """The mean of something about a shadow's row and the answer that was given, by variant."""
        return self._ratios(
            box, name,
            f"""
            SELECT s.model_version, s.variant, s.request_id, {value} AS value
            FROM logged s JOIN logged a ON s.shadow_of = a.prediction_id
            WHERE s.error IS NULL AND a.error IS NULL AND s.prediction IS NOT NULL
            """,
        )  # fmt: skip

    def _ratios(self, box: Any, name: str, values: str) -> dict[tuple[int, str], MetricFigure]:
        """Means over rows, with standard errors over requests."""
        rows = box.execute(
            f"""
            WITH by_request AS (
                SELECT model_version, variant, request_id, sum(value) AS total, count(*) AS n
                FROM ({values}) WHERE value IS NOT NULL AND isfinite(value) GROUP BY ALL
            ), whole AS (
                SELECT model_version, variant, sum(total) / sum(n) AS mean, sum(n) AS n, count(*) AS requests
                FROM by_request GROUP BY ALL
            )
            SELECT model_version, variant, any_value(w.mean), any_value(w.n), any_value(w.requests),
                sum((b.total - w.mean * b.n) ** 2)
            FROM by_request b JOIN whole w USING (model_version, variant) GROUP BY ALL
            """
        ).fetchall()
        z = float(special.ndtri((1 + self._confidence) / 2))
        found = {}
        for version, variant, mean, n, requests, squares in rows:
            reach = z * math.sqrt(squares * requests / (requests - 1)) / n if requests > 1 else 0.0
            if requests < LEAST_REQUESTS:
                figure = MetricFigure(metric=name, value=mean, rows=int(n))
            elif squares == 0 and name == "agreement" and mean in (0.0, 1.0):
                # A share of 0 or 1 has no spread; each request is one trial, as its rows are alike.
                lower, upper = wilson(mean * requests, requests, self._confidence)
                figure = MetricFigure(
                    metric=name, value=mean, lower=lower, upper=upper, confidence=self._confidence,
                    method="wilson", rows=int(n),
                )  # fmt: skip
            else:
                lower, upper = mean - reach, mean + reach
                if name == "agreement":
                    lower, upper = max(lower, 0.0), min(upper, 1.0)
                figure = MetricFigure(
                    metric=name, value=mean, lower=lower, upper=upper, confidence=self._confidence,
                    method="ratio", rows=int(n),
                )  # fmt: skip
            found[version, variant] = figure
        return found

    def _rate(self, errors: int, requests: int) -> MetricFigure:
        if not requests:
            return MetricFigure(metric="error_rate", value=None, rows=0)
        lower, upper = wilson(errors, requests, self._confidence)
        return MetricFigure(
            metric="error_rate", value=errors / requests, lower=lower, upper=upper,
            confidence=self._confidence, method="wilson", rows=requests,
        )  # fmt: skip


def _days(lake: Lake, ref: DatasetRef, since: str | None, until: str | None) -> list[str]:
    return [
        day
        for day in read.partitions(lake, ref)
        if (since is None or day >= since) and (until is None or day <= until)
    ]


def _with_metrics(
    lake: Lake,
    ref: DatasetRef,
    days: Sequence[str],
    found: Sequence[VariantFigures],
    *,
    model: str,
    alias: str,
    label: str,
    metrics: Sequence[str] | None,
    confidence: float,
    seed: int,
) -> list[VariantFigures]:
    """The figures with the metrics of each variant's labeled rows."""
    names = ["model_version", "variant", "request_id", "prediction", "score", label]
    missing = [name for name in names if name not in read.schema_of(lake, ref).names]
    if missing:
        raise ArgumentError(
            f"{ref.table} does not hold the labeled predictions of a log",
            code="argument.variants",
            why=f"it has no column {', '.join(missing)}",
            todo="name the table that joining labels to the log makes, and its column of labels",
        )
    own = (pc.field("model_name") == model) & (pc.field("alias") == alias) & pc.field("prediction").is_valid()
    rows = read.scan(lake, ref, partitions=list(days), columns=names, filter=own).read_all() if days else None
    done = []
    for each in found:
        if rows is not None:
            mine = rows.filter(
                pc.and_(
                    pc.equal(rows["model_version"], each.version),
                    pc.and_(pc.equal(rows["variant"], each.variant.value), pc.is_valid(rows[label])),
                )
            )
            if mine.num_rows:
                task = _task(lake, model, each.version, rows.schema.field("prediction").type)
                made = _metrics(mine, label, task, metrics=metrics, confidence=confidence, seed=seed)
                each = replace(each, metrics=tuple(made.values()))
        done.append(each)
    return done


def _metrics(
    rows: pa.Table, label: str, task: Task, *, metrics: Sequence[str] | None, confidence: float, seed: int
) -> dict[str, MetricFigure]:
    truth, labels = target_values(rows, label), target_values(rows, "prediction")
    if task is Task.CLASSIFICATION and truth.dtype != labels.dtype:
        # A class may be a number in one table and its text in the other.
        truth, labels = truth.astype(str).astype(object), labels.astype(str).astype(object)
    classes = probabilities = None
    if task is Task.CLASSIFICATION:
        classes = np.unique(np.concatenate([truth, labels]))
        scores = np.asarray(rows["score"].cast(pa.float64()).to_numpy(zero_copy_only=False))
        if len(classes) == 2 and np.isfinite(scores).all():
            probabilities = np.column_stack([1 - scores, scores])
    requests = np.asarray(rows["request_id"].to_pylist())
    alone = len(np.unique(requests)) == len(requests)
    return intervals(
        task, truth, Predictions(labels=labels, classes=classes, probabilities=probabilities),
        metrics=metrics, confidence=confidence, seed=seed, clusters=None if alone else requests,
    )  # fmt: skip


def _task(lake: Lake, model: str, version: int, kind: pa.DataType) -> Task:
    try:
        recorded = get_model(lake, model, version).task
    except NotFoundError:
        recorded = ""
    if recorded in set(Task):
        return Task(recorded)
    return Task.REGRESSION if pa.types.is_floating(kind) else Task.CLASSIFICATION
