"""Small evaluations with real figures, for the tests of the report and the card."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.evaluation.plan import MetricTest, plan_from
from airflow_provider_xops.evaluation.scored import Contender, Scored
from airflow_provider_xops.evaluation.statistics import calibration, compare, intervals
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    Evaluation,
    FairnessFigure,
    FeatureImportance,
    GateResult,
    GroupFigure,
    LearningPoint,
    ModelVersion,
    Outcome,
    RobustnessFigure,
    Selection,
    SkewFigure,
    SliceFigure,
)
from airflow_provider_xops.training.metrics import Predictions, Task

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
ACTOR = Actor.user("ann", key="k", fence=1)
DATASET = DatasetRef(lake_id="0" * 32, table="loans", table_uuid="5b1c", version=3)
ROWS = 300
EVIL = "<script>alert(1)</script> | *x* `y` [a](javascript:z)"


def model(
    version: int = 3,
    *,
    task: str = "classification",
    name: str = "loan",
    run_id: str | None = None,
    **more: Any,
) -> ModelVersion:
    facts: dict[str, Any] = {
        "training": Selection(dataset=DATASET, partitions=("2025-01", "2025-02"), rows=900, digest="d" * 64),
        "holdout": Selection(dataset=DATASET, partitions=("2025-03",), rows=ROWS, digest="e" * 64),
        **more,
    }
    return ModelVersion(
        recorded_at=NOW, produced_by=ACTOR.producer, name=name, version=version,
        created_at_ms=1_700_000_000_000 + version, run_id=run_id, source_uri="models:/m-1",
        features=("income", "ratio"), target="denied", task=task, estimator="sklearn:Some",
        code_version="abc",
        params_digest="p", artifact_digest=f"{version}" * 64, metrics={}, **facts,
    )  # fmt: skip


def scored(task: Task = Task.CLASSIFICATION, *, classes: Sequence[Any] = (0, 1), rows: int = ROWS) -> Scored:
    rng = np.random.default_rng(7)
    signal = rng.normal(size=rows)
    if task is Task.REGRESSION:
        truth: Any = 10 * signal + rng.normal(size=rows)
        ours, theirs = (
            Predictions(labels=10 * signal + rng.normal(scale=scale, size=rows)) for scale in (0.5, 3.0)
        )
    else:
        names = np.asarray(classes)
        place = np.clip(np.digitize(signal, np.linspace(-0.7, 0.7, len(names) - 1)), 0, len(names) - 1)
        truth = names[np.where(rng.random(rows) < 0.15, rng.integers(0, len(names), rows), place)]
        ours, theirs = (_said(names, place, rng, sharp) for sharp in (2.0, 0.8))
    table = pa.table({"income": signal, "ratio": rng.random(rows), "denied": pa.array(list(truth))})
    return Scored(
        task=task, table=table, truth=truth,
        challenger=Contender(model=model(3, task=task.value), estimator=None, said=ours),
        champion=Contender(model=model(2, task=task.value), estimator=None, said=theirs),
    )  # fmt: skip


def _said(names: Any, place: Any, rng: Any, sharp: float) -> Predictions:
    logits = rng.normal(size=(len(place), len(names)))
    logits[np.arange(len(place)), place] += sharp
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(labels=names[chances.argmax(axis=1)], classes=names, probabilities=chances)


@functools.cache
def full(task: Task = Task.CLASSIFICATION, *, classes: tuple[Any, ...] = (0, 1)) -> tuple[Evaluation, Scored]:
    """An evaluation in which every part was measured, with its rows."""
    rows = scored(task, classes=classes)
    assert rows.champion is not None
    metric = "mae" if task is Task.REGRESSION else "accuracy"
    plan = plan_from({"resamples": 200, "tests": [{"metric": metric, "margin": 0.01}]})
    options: dict[str, Any] = {"resamples": 200, "seed": 0}
    figures = intervals(task, rows.truth, rows.challenger.said, **options)
    champion = intervals(task, rows.truth, rows.champion.said, **options)
    tests = (MetricTest(metric=metric, margin=0.01),)
    said = rows.challenger.said, rows.champion.said
    evaluation = Evaluation(
        recorded_at=NOW, produced_by=ACTOR.producer, model=rows.challenger.model.ref,
        champion=rows.champion.model.ref, selection=rows.challenger.model.holdout, gates_digest="9" * 64,
        metrics={name: one.value for name, one in figures.items()},
        champion_metrics={name: one.value for name, one in champion.items()},
        comparisons=compare(task, rows.truth, *said, tests=tests, **options),
        gates=(
            GateResult(gate="metric_threshold:x", outcome=Outcome.PASSED, observed=0.9, threshold=0.5),
            GateResult(gate="better_than_champion:x", outcome=Outcome.FAILED, observed=-0.1, threshold=0.0),
            GateResult(gate="calibration_error", outcome=Outcome.NO_DATA, message="not measured"),
        ),
        slices=(
            SliceFigure(
                name="poor", conditions="income < -1 and ratio >= 0.5", metric=metric, rows=40,
                share=40 / ROWS, value=0.61, lower=0.5, upper=0.7, rest=0.8, p_value=0.001,
                adjusted_p_value=0.012,
                champion=0.6, champion_difference=0.01, champion_difference_lower=-0.1,
                champion_difference_upper=0.12, found=True, weak=True,
            ),
        ),
        task=task.value, figures=tuple(figures.values()), champion_figures=tuple(champion.values()),
        calibration=calibration(task, rows.truth, rows.challenger.said, **options),
        fairness=(
            FairnessFigure(
                attribute="region", metric="selection_rate", criterion="demographic_parity",
                groups=(
                    GroupFigure(group="north", rows=200, value=0.41, lower=0.35, upper=0.47),
                    GroupFigure(group="south", rows=100, value=0.53, lower=0.43, upper=0.63),
                ),
                gap=0.12, gap_lower=0.02, gap_upper=0.22, ratio=0.77, left_out=("west",),
            ),
        ),
        importances=(
            FeatureImportance(
                feature="income", method="permutation", value=0.31, lower=0.28, upper=0.34, metric=metric
            ),
            FeatureImportance(feature="ratio", method="shap", value=0.002),
        ),
        robustness=tuple(
            RobustnessFigure(
                perturbation="noise", level=level, metric=metric, value=0.8 - level, baseline=0.8, loss=level,
                lower=level - 0.01, upper=level + 0.01,
            )
            for level in (0.0, 0.1, 0.4)
        ),
        skew=(
            SkewFigure(
                feature="ratio", method="psi", statistic=0.31, threshold=0.2, outcome=Outcome.FAILED
            ),
        ),
        learning_curve=tuple(
            LearningPoint(rows=count, share=count / 900, metric=metric, value=0.5 + count / 3000)
            for count in (90, 450, 900)
        ),
        deferred_gates=({"gate": "latency_budget", "maximum_ms": 50},),
        plan=plan.to_json(),
        notes=("threshold: not measured: it needs costs",),
    )  # fmt: skip
    return evaluation, rows


def bare() -> Evaluation:
    """An evaluation in which nothing could be measured: the oldest form, and the worst one."""
    own = model()
    assert own.holdout is not None
    return Evaluation(
        recorded_at=NOW, produced_by=ACTOR.producer, model=own.ref, champion=None, selection=own.holdout,
        gates_digest="0" * 64, metrics={"roc_auc": None}, champion_metrics={}, comparisons=(), gates=(),
    )  # fmt: skip
