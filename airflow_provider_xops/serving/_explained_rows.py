"""The row behind a prediction id: of a scored partition, or of the prediction log.

For :mod:`airflow_provider_xops.serving.explain`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.errors import ArgumentError, DataError, LakeError, NotFoundError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import DatasetRef, ModelVersion, ScoringRun, ServingSession
from airflow_provider_xops.serving.batch import PREDICTION_ID_DIGITS
from airflow_provider_xops.serving.online._log_rows import column_of
from airflow_provider_xops.training.frames import feature_frame

__all__ = ["Written", "row_of", "same"]

SAME_WITHIN = 1e-9
# What a table that was removed or cleaned up says; one that is damaged is not as good as gone.
GONE = frozenset({"lake.missing_file", "lake.not_found"})


@dataclass(frozen=True, kw_only=True)
class Written:
    """A prediction with the row it was made from.

    :param dataset: the dataset version, ``partition`` and ``row`` that has the input.
    :param frame: the row as the model takes it.
    :param said: the prediction and score that were written; None where they are not there to compare.
    :param columns: of ``dataset``, the column of each feature.
    """

    model: ModelVersion
    dataset: DatasetRef
    partition: str
    row: int
    frame: pd.DataFrame = field(repr=False)
    said: tuple[Any, Any] | None = field(repr=False)
    columns: dict[str, str] = field(default_factory=dict)

    def others(self, lake: Lake, rows: int, seed: int) -> pd.DataFrame:
        """Other rows of the same partition, as the model takes them."""
        names = [self.columns[name] for name in self.model.features]
        table = read.scan(lake, self.dataset, partitions=[self.partition], columns=names).read_all()
        chosen = np.random.default_rng(seed).permutation(table.num_rows)[:rows]
        return _frame(table.take(np.sort(chosen)), self.model.features, self.columns)


def row_of(lake: Lake, prediction_id: str, digits: str, number: int) -> Written:
    """What stands behind a prediction id.

    :param digits: the first of the id of its scoring run or serving session; ``number`` its own.
    :raises NotFoundError: ``not_found.prediction``.
    :raises DataError: ``data.partition_changed``, ``data.features_not_kept``.
    """
    runs = [run for run in lake.evidence.find(ScoringRun.kind, digits) if isinstance(run, ScoringRun)]
    if len(runs) == 1:
        return _scored(lake, prediction_id, runs[0], number)
    if not runs:
        for session in lake.evidence.find(ServingSession.kind, digits):
            if isinstance(session, ServingSession):
                return _served(lake, prediction_id, session, number)
    raise _unknown(
        prediction_id,
        f"{len(runs)} scoring runs have ids that begin with its digits, and no serving session does",
    )


def same(written: Any, said: Any) -> bool:
    """Whether two predictions or scores are one, whole numbers and text exactly."""
    if written is None or said is None or isinstance(written, str):
        # Missing agrees with missing alone.
        return written is said if None in (written, said) else written == str(said)
    return math.isclose(written, float(said), rel_tol=SAME_WITHIN, abs_tol=SAME_WITHIN)


def _scored(lake: Lake, prediction_id: str, run: ScoringRun, row: int) -> Written:
    if row >= run.rows:
        raise _unknown(prediction_id, f"the scoring run made {run.rows} predictions, counted from 0")
    model = _model(lake, run.model_record)
    return Written(
        model=model, dataset=run.dataset_in, partition=run.partition, row=row,
        frame=_scored_row(lake, run, row, model),
        said=_said(lake, run.dataset_out, run.partition, f"{run.record_id[:PREDICTION_ID_DIGITS]}-{row}"),
        columns={name: name for name in model.features},
    )  # fmt: skip


def _scored_row(lake: Lake, run: ScoringRun, row: int, model: ModelVersion) -> pd.DataFrame:
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


def _said(lake: Lake, dataset: DatasetRef, partition: str, prediction_id: str) -> tuple[Any, Any] | None:
    """What was written for a prediction."""
    own = pc.field("prediction_id") == prediction_id
    try:
        rows = read.scan(
            lake, dataset, partitions=[partition], columns=["prediction", "score"], filter=own
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
    return written["prediction"], written["score"]


def _served(lake: Lake, prediction_id: str, session: ServingSession, number: int) -> Written:
    """A prediction that a server gave: its input is in the log, if the log keeps the features."""
    if session.log_table is None:
        raise _unknown(prediction_id, "its server kept no log of its predictions")
    model = _model(lake, session.model_record)
    dataset = head(lake, session.log_table)
    known = read.schema_of(lake, dataset).names
    columns = {name: column_of(name) for name in model.features}
    gone = [name for name, column in columns.items() if column not in known]
    if gone:
        raise DataError(
            f"the log {dataset.table} does not have the features of {model.ref}",
            code="data.features_not_kept",
            why=f"the columns {', '.join(gone[:10])} are not kept",
            todo="let the server keep all features in its log, then explain predictions made after that",
            context={"missing": gone},
        )
    since = f"{session.started_at.astimezone(UTC):%Y-%m-%d}"
    days = [day for day in read.partitions(lake, dataset) if day >= since]
    names = [*columns.values(), "prediction", "score", "error", "shadow_of"]
    found = _logged(lake, dataset, days, prediction_id, names)
    row = found
    if found is not None and found["shadow_of"][0].as_py() is not None:
        # A shadow saw the rows of the answer, and the log keeps them there.
        row = _logged(lake, dataset, days, found["shadow_of"][0].as_py(), names)
    if found is None or row is None:
        raise _unknown(prediction_id, f"its row is not in {dataset.table}: not written yet, dropped, or lost")
    if found["error"][0].as_py() is not None:
        raise _unknown(prediction_id, f"the request failed ({found['error'][0].as_py()})")
    return Written(
        model=model, dataset=dataset, partition=row["_xops_partition"][0].as_py(), row=number,
        frame=_frame(row.select(list(columns.values())), model.features, columns),
        said=(found["prediction"][0].as_py(), found["score"][0].as_py()), columns=columns,
    )  # fmt: skip


def _logged(
    lake: Lake, dataset: DatasetRef, days: Sequence[str], prediction_id: str, names: Sequence[str]
) -> pa.Table | None:
    if not days:
        return None
    own = pc.field("prediction_id") == prediction_id
    table = read.scan(
        lake, dataset, partitions=days, columns=list(names), filter=own, with_partition=True
    ).read_all()
    return table if table.num_rows == 1 else None


def _frame(table: pa.Table, features: Sequence[str], columns: dict[str, str]) -> pd.DataFrame:
    renamed = {column: name for name, column in columns.items()}
    return feature_frame(table.rename_columns([renamed[name] for name in table.column_names]), features)


def _model(lake: Lake, record_id: str) -> ModelVersion:
    model = lake.evidence.get(ModelVersion.kind, record_id)
    assert isinstance(model, ModelVersion)
    return model


def _unknown(prediction_id: str, why: str) -> NotFoundError:
    return NotFoundError(
        f"the lake knows no prediction {prediction_id}", code="not_found.prediction", why=why,
        todo="check the id, and that this is the lake it was written to",
    )  # fmt: skip
