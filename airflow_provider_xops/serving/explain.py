"""Why one prediction is what it is: from its id to the contribution of each feature.

For ``xops explain`` and notebooks. The id leads to the scoring run, the run to the model version and to the
input row; of a prediction that a server gave, to its session and to the row in the prediction log, if the log
keeps the features. The model is asked again, and its answer is compared with the one that was written.

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

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation import _shap
from airflow_provider_xops.evaluation._extras import has
from airflow_provider_xops.evaluation.explanation import background_of
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import DatasetRef, ModelRef
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.serving._explained_rows import Written, row_of, same
from airflow_provider_xops.serving.batch import PREDICTION_ID_DIGITS
from airflow_provider_xops.training.predicting import predict, task_of

__all__ = ["Contribution", "Explanation", "explain"]

log = logging.getLogger(__name__)

_PREDICTION = re.compile(rf"(?P<run>[0-9a-f]{{{PREDICTION_ID_DIGITS}}})-(?P<row>[0-9]{{1,18}})")


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
        from; of a prediction that a server gave, the log, and its number in the server's session.
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
    :raises DataError: ``data.partition_changed``: the partition read is not the one that was scored;
        ``data.features_not_kept``: the log of the server that gave it does not keep the features.
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
    written = row_of(lake, prediction_id.strip(), match["run"], int(match["row"]))
    model = written.model
    estimator = load_model(client, lake, model)
    task, name = task_of(estimator, recorded=model.task), str(model.ref)
    others, told = _background(lake, written, background, seed)
    frame = _alike(written.frame, others)
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
        prediction_id=prediction_id.strip(), model=model.ref, input=written.dataset,
        partition=written.partition, row=written.row, prediction=_plain(label),
        output=str(made.outputs[output]),
        answer=float(made.said[0, output]), base=float(made.base[output]),
        contributions=tuple(
            Contribution(
                feature=str(frame.columns[place]), value=_plain(frame.iloc[0, place]),
                contribution=float(made.values[0, place, output]),
            )
            for place in order
        ),
        method=made.method,
        agrees=None if written.said is None else (
            same(written.said[0], _plain(label))
            and same(written.said[1], None if said.scores is None else _plain(said.scores[0]))
        ),
        background=told, background_rows=len(others),
    )  # fmt: skip


def _background(lake: Lake, written: Written, background: int, seed: int) -> tuple[pd.DataFrame, str]:
    model = written.model
    if model.training is not None:
        return (
            background_of(lake, model, rows=background, seed=seed),
            f"training rows of {model.training.dataset}",
        )
    log.info("The training rows of %s are not known; other rows of the partition stand in.", model.ref)
    return written.others(lake, background, seed), f"scored rows of {written.dataset}"


def _alike(frame: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """The row with the times of the training rows: a log keeps all of them in UTC, dates too."""
    for name in frame.columns:
        if frame[name].dtype.kind == "M" and frame[name].dtype != others[name].dtype:
            plain = frame[name].dt.tz_convert("UTC").dt.tz_localize(None)
            zone = getattr(others[name].dtype, "tz", None)
            frame = frame.assign(**{name: plain if zone is None else plain.dt.tz_localize("UTC")})
    return frame


def _plain(value: Any) -> Any:
    """A value of the row as plain Python; None where it is missing."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if value is pd.NaT or value is None:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value
