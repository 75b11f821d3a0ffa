"""The columns of a table of predictions.

Private to batch scoring. The first of them are there always; those of the reasons and of the purpose only
where somebody asked for them: a table gets them by evolution, and rows without them have nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import SchemaPolicy
from airflow_provider_xops.lake.tables import own_table, table_schema
from airflow_provider_xops.records import ScoringRun
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = [
    "OUR_COLUMNS",
    "PREDICTION_ID_DIGITS",
    "PURPOSE",
    "is_ours",
    "label_array",
    "label_type",
    "output_schema",
    "policy_for",
    "prediction_columns",
    "reason_names",
]

PREDICTION_ID_DIGITS = 24
OUR_COLUMNS = (
    "prediction_id", "prediction", "score", "model_name", "model_version", "input_table", "input_version",
    "input_partition",
)  # fmt: skip
PURPOSE = "purpose"
_REASON = "reason_"
_TYPES = {"score": pa.float64(), "model_version": pa.int64(), "input_version": pa.int64()}


def is_ours(name: str) -> bool:
    """Whether a column name is taken by the predictions themselves."""
    return name in OUR_COLUMNS or _is_optional(name)


def reason_names(top: int) -> tuple[str, ...]:
    """The columns of the reasons.

    >>> reason_names(1)
    ('reason_1', 'reason_1_contribution', 'reason_base', 'reason_rest')
    """
    named = [f"{_REASON}{place + 1}{end}" for place in range(top) for end in ("", "_contribution")]
    return (*named, f"{_REASON}base", f"{_REASON}rest") if top else ()


def output_schema(kept: Sequence[pa.Field], label: pa.DataType, *, top: int, purpose: str) -> pa.Schema:
    """The columns of the predictions, in their order.

    :param kept: of the input. :param top: how many reasons.
    """
    head, *tail = OUR_COLUMNS
    types = {**_TYPES, "prediction": label}
    reasons = [
        pa.field(name, pa.string() if name.removeprefix(_REASON).isdecimal() else pa.float64())
        for name in reason_names(top)
    ]
    return pa.schema(
        [pa.field(head, pa.string()), *kept, *(pa.field(name, types.get(name, pa.string())) for name in tail)]
        + reasons
        + ([pa.field(PURPOSE, pa.string())] if purpose else [])
    )


def prediction_columns(
    said: Predictions, run: ScoringRun, label: pa.DataType, *, first: int, rows: int
) -> dict[str, Any]:
    """The columns that say what was predicted, by which model, from what.

    :param first: place of the first of these rows in its partition.
    """
    numbers = pc.cast(pa.array(np.arange(first, first + rows)), pa.string())
    scores = said.scores
    told = {
        "model_name": run.model_name, "model_version": run.model_version,
        "input_table": run.dataset_in.table, "input_version": run.dataset_in.version,
        "input_partition": run.partition, PURPOSE: run.purpose,
    }  # fmt: skip
    return {
        "prediction_id": pc.binary_join_element_wise(run.record_id[:PREDICTION_ID_DIGITS], numbers, "-"),
        "prediction": label_array(said.labels, label),
        "score": pa.nulls(rows, pa.float64()) if scores is None else pa.array(scores, from_pandas=True),
        **{
            name: pa.repeat(pa.scalar(value, _TYPES.get(name, pa.string())), rows)
            for name, value in told.items()
        },
    }


def label_type(estimator: Any, task: Task) -> pa.DataType:
    """The type of a prediction, known before any row is read: that of the classes, else a number."""
    classes = getattr(estimator, "classes_", None)
    if task is not Task.CLASSIFICATION or classes is None:
        return pa.float64()
    kind = np.asarray(classes).dtype.kind
    return pa.int64() if kind in "biu" else pa.float64() if kind == "f" else pa.string()


def label_array(labels: Any, kind: pa.DataType) -> pa.Array:
    """Predicted labels as Arrow has them."""
    if pa.types.is_string(kind):
        return pa.array([str(label) for label in labels], kind)
    return pa.array(
        np.asarray(labels).astype(np.float64 if pa.types.is_floating(kind) else np.int64), from_pandas=True
    )


def policy_for(lake: Lake, table: str, names: Sequence[str]) -> SchemaPolicy | None:
    """How a table takes predictions with these columns: optional ones may come, or be missing in these rows.

    None where the table is not there, or differs in other columns too: then the commit says which.
    """
    handle = own_table(lake, table)
    apart = set() if handle is None else set(table_schema(handle).names) ^ set(names)
    if not apart or not all(_is_optional(name) for name in apart):
        return None
    return SchemaPolicy(added="evolve", removed="fill_null")


def _is_optional(name: str) -> bool:
    place = name.removeprefix(_REASON).removesuffix("_contribution")
    return name == PURPOSE or (name.startswith(_REASON) and (place.isdecimal() or place in ("base", "rest")))
