"""Why one prediction is what it is: from its id to the contribution of each feature.

For ``xops explain`` and notebooks. The id leads to the scoring run, the run to the model version and to the
input row; the model is asked again, and its answer is compared with the one that was written.

The result holds values of a row. It is for the person who asked and may read the lake; nothing here writes
it to a log or a record.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from airflow_provider_xops.errors import ArgumentError, DataError, LakeError, NotFoundError
from airflow_provider_xops.evaluation import _shap
from airflow_provider_xops.evaluation._extras import has
from airflow_provider_xops.evaluation.explanation import background_of
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import DatasetRef, ModelRef, ModelVersion, ScoringRun
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.serving.batch import PREDICTION_ID_DIGITS
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.predicting import predict, task_of

__all__ = ["Contribution", "Explanation", "explain"]

log = logging.getLogger(__name__)

_PREDICTION = re.compile(rf"(?P<run>[0-9a-f]{{{PREDICTION_ID_DIGITS}}})-(?P<row>[0-9]{{1,18}})")
SAME_WITHIN = 1e-9
# What a table that was removed or cleaned up says; one that is damaged is not as good as gone.
GONE = frozenset({"lake.missing_file", "lake.not_found"})


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What one feature adds to the prediction, in its unit; ``value`` is the row's own."""

    feature: str
    value: Any = field(repr=False)
    contribution: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One prediction taken apart.

    :param input: the dataset version, ``partition`` and ``row`` (0 is the partition's first) it was made
        from.
    :param output: what is explained: the probability of this class, or the predicted number (empty).
    :param answer: the model's answer now; ``base`` its mean answer over the background rows.
    :param contributions: the largest first.
    :param method: ``shap (...)``: base and contributions sum up to the answer; ``ablation``: each says how
        the answer would differ without the feature, and they do not sum up.
    :param agrees: whether the written prediction is what the model says now; None where the row of the
        output table is not there to compare.
    :param background_rows: how many, and ``background`` of which data.
    """

    prediction_id: str
    model: ModelRef
    input: DatasetRef
    partition: str
    row: int
    prediction: Any = field(repr=False)
    output: str
    answer: float = field(repr=False)
    base: float
    contributions: tuple[Contribution, ...]
    method: str
    agrees: bool | None
    background: str
    background_rows: int

    @property
    def additive(self) -> bool:
        """Whether base and contributions sum up to the answer."""
        return self.method.startswith("shap")


def explain(
    lake: Lake, client: RegistryClient, prediction_id: str, *, background: int = 100, seed: int = 0
) -> Explanation:
    """The features' contributions to one prediction, against rows the model was trained on.

    SHAP values where the extra ``explain`` is installed, else single-feature ablation. Of a classifier the
    probability of the positive (second) class is explained; with more classes, of the class it predicts.

    :param background: how many training rows a feature's absence is imitated with. A model that was adopted
        without its training rows is compared with rows of the partition that was scored.
    :raises ArgumentError: ``argument.prediction_id``, ``argument.background``.
    :raises NotFoundError: ``not_found.prediction``.
    :raises DataError: ``data.partition_changed``: the partition read is not the one that was scored.
    :raises LakeError: a data file of either table is damaged or may not be read.
    :raises ModelError: the model cannot be loaded, or predict.

    >>> explain(lake, client, "4f0c0ffee4f0c0ffee4f0c0f-17").contributions[0].feature  # doctest: +SKIP
    'dep_delay'

    What it does not do: it says what the model made of the row, not what caused the outcome.
    """
    match = _PREDICTION.fullmatch(prediction_id.strip())
    if match is None:
        raise ArgumentError(
            f"{prediction_id!r} is no prediction id", code="argument.prediction_id",
            why=f"it is {PREDICTION_ID_DIGITS} hexadecimal digits, a dash and the row's number",
            todo="take one from the column prediction_id of a table of predictions",
        )  # fmt: skip
    if background < 1:
        raise ArgumentError("no background rows", code="argument.background", todo="give 1 or more")
    run, row = _run_of(lake, prediction_id, match["run"]), int(match["row"])
    if row >= run.rows:
        raise _unknown(prediction_id, f"the scoring run made {run.rows} predictions, counted from 0")
    model = lake.evidence.get(ModelVersion.kind, run.model_record)
    assert isinstance(model, ModelVersion)
    frame = _row(lake, run, row, model)
    estimator = load_model(client, lake, model)
    task, name = task_of(estimator, recorded=model.task), str(model.ref)
    others, told = _background(lake, run, model, background, seed)
    if has("shap"):
        made = _shap.contributions(estimator, frame, others, task=task, name=name, seed=seed)
    else:
        made = _shap.ablation(estimator, frame, others, task=task, name=name)
    said = predict(estimator, frame, task=task, name=name)
    label = said.labels[0]
    output = 0 if len(made.outputs) == 1 else list(made.outputs).index(label)
    order = np.argsort(-np.abs(made.values[0, :, output]), kind="stable")
    log.info("Explained a prediction of %s by %s.", model.ref, made.method)
    return Explanation(
        prediction_id=prediction_id.strip(), model=model.ref, input=run.dataset_in, partition=run.partition,
        row=row, prediction=_plain(label), output=str(made.outputs[output]),
        answer=float(made.said[0, output]), base=float(made.base[output]),
        contributions=tuple(
            Contribution(
                feature=str(frame.columns[place]), value=_plain(frame.iloc[0, place]),
                contribution=float(made.values[0, place, output]),
            )
            for place in order
        ),
        method=made.method,
        agrees=_agrees(lake, run, row, _plain(label), None if said.scores is None else said.scores[0]),
        background=told, background_rows=len(others),
    )  # fmt: skip


def _run_of(lake: Lake, prediction_id: str, digits: str) -> ScoringRun:
    found = [run for run in lake.evidence.find(ScoringRun.kind, digits) if isinstance(run, ScoringRun)]
    if len(found) != 1:
        raise _unknown(prediction_id, f"{len(found)} scoring runs have ids that begin with its digits")
    return found[0]


def _unknown(prediction_id: str, why: str) -> NotFoundError:
    return NotFoundError(
        f"the lake knows no prediction {prediction_id}", code="not_found.prediction", why=why,
        todo="check the id, and that this is the lake it was written to",
    )  # fmt: skip


def _row(lake: Lake, run: ScoringRun, row: int, model: ModelVersion) -> pd.DataFrame:
    """The input row of a prediction, from the very content that was scored."""
    now = read.partition_digests(lake, run.dataset_in).get(run.partition)
    if now != run.input_digest:
        raise DataError(
            f"partition {run.partition} of {run.dataset_in} is not the one that was scored",
            code="data.partition_changed",
            why="it is not there" if now is None else "its digest is another one",
            todo=f"check the table with `xops lake verify {run.dataset_in}`",
        )  # fmt: skip
    first = 0
    reader = read.scan(
        lake, run.dataset_in, partitions=[run.partition], columns=list(model.features), batch_rows=50_000
    )
    for batch in reader:
        if row < first + batch.num_rows:
            return feature_frame(batch.slice(row - first, 1), model.features)
        first += batch.num_rows
    raise _unknown(run.record_id, f"the partition has {first} rows")


def _background(
    lake: Lake, run: ScoringRun, model: ModelVersion, rows: int, seed: int
) -> tuple[pd.DataFrame, str]:
    if model.training is not None:
        return background_of(lake, model, rows=rows, seed=seed), f"training rows of {model.training.dataset}"
    log.info("The training rows of %s are not known; other rows of the partition stand in.", model.ref)
    table = read.scan(
        lake, run.dataset_in, partitions=[run.partition], columns=list(model.features)
    ).read_all()
    chosen = np.random.default_rng(seed).permutation(table.num_rows)[:rows]
    return feature_frame(table.take(np.sort(chosen)), model.features), f"scored rows of {run.dataset_in}"


def _agrees(lake: Lake, run: ScoringRun, row: int, label: Any, score: Any) -> bool | None:
    """Whether the prediction that was written is the one the model gives now."""
    own = pc.field("prediction_id") == f"{run.record_id[:PREDICTION_ID_DIGITS]}-{row}"
    try:
        rows = read.scan(
            lake, run.dataset_out, partitions=[run.partition], columns=["prediction", "score"], filter=own
        ).read_all()  # fmt: skip
    except (NotFoundError, ArgumentError):  # expired, dropped or made again since
        return None
    except LakeError as error:
        if error.code not in GONE:
            raise
        return None
    if rows.num_rows != 1:
        return None
    written = rows.to_pylist()[0]
    return _same(written["prediction"], label) and _same(written["score"], score)


def _same(written: Any, said: Any) -> bool:
    said = _plain(said)
    if written is None or said is None or isinstance(written, str):
        # Missing agrees with missing alone.
        return written is said if None in (written, said) else written == str(said)
    return math.isclose(written, float(said), rel_tol=SAME_WITHIN, abs_tol=SAME_WITHIN)


def _plain(value: Any) -> Any:
    """A value of the row as plain Python; None where it is missing."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if value is pd.NaT or value is None:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value
