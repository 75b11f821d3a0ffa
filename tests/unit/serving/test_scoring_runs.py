"""Scoring on a real lake, without MLflow: reasons, purposes, progress, memory, and the champion of a day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from airflow_provider_xops.errors import Superseded, XOpsError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import DatasetRef, ModelVersion, PromotionOutcome, ScoringRun
from airflow_provider_xops.serving import _batch_scorer
from airflow_provider_xops.serving import reasons as reasoning
from airflow_provider_xops.serving.back_scoring import (
    PlannedScoring,
    back_score,
    champions_of_the_days,
    plan_with_champions,
)
from airflow_provider_xops.serving.batch import BACK_SCORING, Progress, ScoreResult, score
from tests.unit.serving.scoring_cases import (
    AS_OF,
    DAYS,
    NAME,
    ROWS,
    an_actor,
    day,
    decide,
    fill,
    nobody,
    record_models,
    without_mlflow,
)

pytestmark = pytest.mark.usefixtures("loaded")


@pytest.fixture
def dataset(lake: Lake) -> DatasetRef:
    return fill(lake)


@pytest.fixture
def models(lake: Lake, dataset: DatasetRef) -> dict[int, ModelVersion]:
    return record_models(lake, dataset)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return without_mlflow(monkeypatch)


def scored(lake: Lake, model: ModelVersion, dataset: DatasetRef, **changes: Any) -> ScoreResult:
    arguments: dict[str, Any] = {
        "partitions": None, "output_table": "predictions", "keep_columns": ["id"], "batch_rows": 8,
        "actor": an_actor(), "as_of": AS_OF, **changes,
    }  # fmt: skip
    return score(lake, nobody(), model=model, dataset=dataset, **arguments)


def rows_of(lake: Lake, table: str = "predictions") -> pa.Table:
    return read.scan(lake, head(lake, table)).read_all()


@pytest.mark.parametrize("version", [1, 2])
def test_reasons_stand_in_the_row_and_add_up_to_its_score(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef, version: int
) -> None:
    scored(lake, models[version], dataset, reasons=2, partitions=[DAYS[2]])
    rows = rows_of(lake)
    assert rows.column_names[-6:] == [
        "reason_1", "reason_1_contribution", "reason_2", "reason_2_contribution", "reason_base",
        "reason_rest",
    ]  # fmt: skip
    parts = [rows[name].to_pylist() for name in rows.column_names if name.startswith("reason_")]
    numbers = np.array([[x or 0.0 for x in part] for part in (parts[1], parts[3], parts[4], parts[5])])
    np.testing.assert_allclose(numbers.sum(axis=0), rows["score"].to_numpy(), atol=1e-9)
    assert parts[0].count("x") > ROWS / 2  # the label follows from it
    # whatever the batches, the rows are the same
    scored(lake, models[version], dataset, reasons=2, partitions=[DAYS[2]], output_table="o", batch_rows=1000)
    other = rows_of(lake, "o")
    assert other["reason_1"].equals(rows["reason_1"])
    np.testing.assert_allclose(
        other["reason_1_contribution"].to_numpy(), rows["reason_1_contribution"].to_numpy(), atol=1e-9
    )


def test_asking_for_reasons_later_gives_the_same_rows_reasons_and_nothing_twice(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    plain = scored(lake, models[2], dataset)
    before = rows_of(lake)
    with_reasons = scored(lake, models[2], dataset, partitions=[DAYS[0]], reasons={"top": 1, "background": 9})
    rows = rows_of(lake)
    assert rows["prediction_id"].to_pylist() == before["prediction_id"].to_pylist()
    assert rows["score"].equals(before["score"])
    told = [name is not None for name in rows["reason_1"].to_pylist()]
    assert told == [True] * ROWS + [False] * (3 * ROWS)
    assert not with_reasons.reused
    assert with_reasons.runs == plain.runs[:1]
    # and without them again: what is there is made anew without, and others may go on without
    assert scored(lake, models[2], dataset, partitions=[DAYS[1]]).reused


def test_reasons_that_cost_too_much_write_nothing(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: a model of a kind that must be asked
    monkeypatch.setattr(reasoning, "own_method", lambda *_, **__: None)
    with pytest.raises(XOpsError) as caught:
        scored(lake, models[1], dataset, reasons={"top": 1, "max_answers": 1000})
    assert caught.value.code == "argument.reasons_cost"
    assert not table_exists(lake, "predictions")
    assert not list(lake.evidence.all(ScoringRun.kind))


def test_a_late_run_of_an_earlier_version_takes_no_correction_back_and_does_the_rest(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    # given: the first day was corrected and scored again before a run of the version before began
    corrected = fill(lake, days=DAYS[:1], seed=4)
    scored(lake, models[2], corrected, partitions=DAYS[:1])
    before = rows_of(lake)
    with pytest.raises(Superseded):
        scored(lake, models[2], dataset, partitions=DAYS[:1], actor=an_actor(fence=10**17))
    # when
    late = scored(lake, models[2], dataset, partitions=DAYS[:2], actor=an_actor(fence=10**17))
    # then
    assert (late.superseded, [run.partition for run in late.runs]) == (DAYS[:1], [DAYS[1]])
    rows = rows_of(lake)
    assert rows.filter(pc.equal(rows["input_partition"], DAYS[0])).equals(before)
    assert rows.num_rows == 2 * ROWS
    # a correction that comes later still replaces, and what was made afterwards is of the version asked for
    scored(lake, models[2], fill(lake, days=DAYS[:1], seed=5), partitions=DAYS[:1], actor=an_actor(fence=0))
    assert not scored(lake, models[2], corrected, partitions=DAYS[:1], purpose=BACK_SCORING).superseded
    assert not scored(
        lake, models[2], dataset, partitions=DAYS[:1], purpose=BACK_SCORING, actor=an_actor(fence=2)
    ).superseded


def test_the_steps_of_back_scoring_are_those_of_the_whole_plan(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    steps: list[Progress] = []
    plan = [
        PlannedScoring(model=models[1], partitions=DAYS[:1]),
        PlannedScoring(model=models[2], partitions=DAYS[1:]),
    ]
    back_score(
        lake, nobody(), plan=plan, dataset=dataset, output_table="back", batch_rows=ROWS,
        progress=steps.append, actor=an_actor(), as_of=AS_OF,
    )  # fmt: skip
    assert [(step.partition, step.number, step.rows, step.predicted) for step in steps] == [
        (name, number + 1, ROWS * (number + 1), ROWS * (number + 1)) for number, name in enumerate(DAYS)
    ]
    assert {(step.partitions, step.total) for step in steps} == {(4, 4 * ROWS)}


@pytest.mark.parametrize("name", ["9999-12-31", "2025-03-011", "2025-13-01", "north"])
def test_a_partition_that_is_no_day_has_no_champion_of_the_day(lake: Lake, name: str) -> None:
    with pytest.raises(XOpsError) as caught:
        champions_of_the_days(lake, NAME, [name])
    assert caught.value.code == "argument.partition_day"


def test_a_purpose_that_is_none_is_refused(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    with pytest.raises(XOpsError) as caught:
        scored(lake, models[1], dataset, purpose="fun")
    assert caught.value.code == "argument.purpose"


def test_progress_counts_every_row_once_and_what_was_done_before(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    scored(lake, models[1], dataset, partitions=[DAYS[0]])
    steps: list[Progress] = []
    scored(lake, models[1], dataset, progress=steps.append)
    assert [step.predicted for step in steps] == [
        ROWS * whole + part for whole in range(3) for part in (8, 16, 24, 30)
    ]
    assert [step.rows for step in steps] == [ROWS + step.predicted for step in steps]
    assert {(step.total, step.partitions) for step in steps} == {(4 * ROWS, 4)}
    assert [(step.number, step.partition) for step in steps[::4]] == [
        (2, DAYS[1]), (3, DAYS[2]), (4, DAYS[3]),
    ]  # fmt: skip


def test_what_progress_raises_ends_the_scoring_and_a_retry_does_it_once(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    def stop(step: Progress) -> None:
        if step.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(lake, models[1], dataset, progress=stop)
    assert not table_exists(lake, "predictions")
    scored(lake, models[1], dataset)
    ids = rows_of(lake)["prediction_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 4 * ROWS


@pytest.mark.parametrize("reasons", [0, 2])
def test_no_more_rows_are_held_than_two_batches(
    lake: Lake,
    models: dict[int, ModelVersion],
    dataset: DatasetRef,
    monkeypatch: pytest.MonkeyPatch,
    reasons: int,
) -> None:
    large = fill(lake, "large", DAYS[:1], rows=1000)
    pulled, written, held, asked = 0, 0, [0], []

    real_scan, real_columns = read.scan, _batch_scorer.prediction_columns

    def scan(*args: Any, **options: Any) -> Any:
        reader = real_scan(*args, **options)
        if options.get("batch_rows") is None:
            return reader  # of the training rows

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal pulled
            for batch in reader:
                pulled += batch.num_rows
                held.append(pulled - written)
                yield batch

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def columns(*args: Any, **options: Any) -> Any:
        nonlocal written
        asked.append(options["rows"])
        written += options["rows"]
        return real_columns(*args, **options)

    monkeypatch.setattr(_batch_scorer.read, "scan", scan)
    monkeypatch.setattr(_batch_scorer, "prediction_columns", columns)
    scored(lake, models[2], large, batch_rows=30, reasons=reasons)
    assert pulled == written == 1000
    assert max(asked) <= 30
    assert max(held) <= 60


def test_back_scored_predictions_stand_beside_and_say_so(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    made = scored(lake, models[1], dataset, partitions=DAYS[:2])
    before = rows_of(lake)
    plan = [PlannedScoring(model=models[1], partitions=DAYS[1:3])]
    arguments: dict[str, Any] = {
        "plan": plan, "dataset": dataset, "output_table": "predictions", "keep_columns": ["id"],
        "actor": an_actor("back"), "as_of": AS_OF,
    }  # fmt: skip
    back = back_score(lake, nobody(), **arguments)
    assert (back.rows, back.reused) == (2 * ROWS, False)
    rows = rows_of(lake)
    ids, purposes = rows["prediction_id"].to_pylist(), rows["purpose"].to_pylist()
    assert len(set(ids)) == len(ids) == 4 * ROWS
    kept = {each for each, purpose in zip(ids, purposes, strict=True) if purpose is None}
    assert kept == set(before["prediction_id"].to_pylist())
    assert purposes.count(BACK_SCORING) == 2 * ROWS
    ((_, result),) = back.scored
    assert {run.purpose for run in result.runs} == {BACK_SCORING}
    assert not {run.record_id for run in result.runs} & {run.record_id for run in made.runs}
    # once more, and production once more: nothing new
    assert back_score(lake, nobody(), **arguments).reused
    assert scored(lake, models[1], dataset, partitions=DAYS[:2]).reused
    # production goes on in the table that has the column
    scored(lake, models[1], dataset, partitions=[DAYS[3]])
    assert rows_of(lake)["purpose"].to_pylist().count(None) == 3 * ROWS


def test_the_champion_of_a_day_is_the_one_that_stood_when_it_ended(
    lake: Lake, models: dict[int, ModelVersion]
) -> None:
    # given: v1 promoted in the night before the 3rd (New York), v2 at noon of the 4th, and rolled back later
    decide(lake, models[1], datetime(2025, 3, 3, 3, 0, tzinfo=UTC), PromotionOutcome.PROMOTED)
    decide(lake, models[2], datetime(2025, 3, 4, 17, 0, tzinfo=UTC), PromotionOutcome.PROMOTED)
    decide(lake, models[1], datetime(2025, 3, 9, tzinfo=UTC), PromotionOutcome.ROLLED_BACK)

    def versions(zone: str) -> list[int | None]:
        found = champions_of_the_days(lake, NAME, [*DAYS, "2025-03-09"], time_zone=zone)
        return [model.version if model else None for model in found.values()]

    assert versions("UTC") == [None, None, 1, 2, 1]
    assert versions("America/New_York") == [None, 1, 1, 2, 1]


def test_each_day_is_scored_by_its_champion_once(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef, loaded: list[int]
) -> None:
    decide(lake, models[1], datetime(2025, 3, 2, 9, tzinfo=UTC), PromotionOutcome.PROMOTED)
    decide(lake, models[2], datetime(2025, 3, 3, 9, tzinfo=UTC), PromotionOutcome.PROMOTED)
    decide(lake, models[1], datetime(2025, 3, 4, 9, tzinfo=UTC), PromotionOutcome.ROLLED_BACK)
    with pytest.raises(XOpsError) as caught:
        plan_with_champions(lake, model_name=NAME, dataset=dataset)
    assert caught.value.code == "not_found.champion"
    plan, without = plan_with_champions(lake, model_name=NAME, dataset=dataset, on_no_champion="skip")
    assert without == DAYS[:1]
    assert [(each.model.version, each.partitions) for each in plan] == [
        (1, (DAYS[1], DAYS[3])), (2, (DAYS[2],)),
    ]  # fmt: skip
    for reused in (False, True):
        done = back_score(
            lake, nobody(), plan=plan, without=without, dataset=dataset, output_table="back",
            actor=an_actor(), as_of=AS_OF,
        )  # fmt: skip
        assert done.reused is reused
    assert loaded == [1, 2]
    rows = rows_of(lake, "back")
    by_day = dict(zip(rows["input_partition"].to_pylist(), rows["model_version"].to_pylist(), strict=True))
    assert by_day == {DAYS[1]: 1, DAYS[2]: 2, DAYS[3]: 1}
    assert rows.num_rows == 3 * ROWS


def test_killed_between_two_versions_back_scoring_goes_on_where_it_was(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    plan = [
        PlannedScoring(model=models[1], partitions=DAYS[:2]),
        PlannedScoring(model=models[2], partitions=DAYS[2:]),
    ]
    arguments: dict[str, Any] = {
        "plan": plan, "dataset": dataset, "output_table": "back", "actor": an_actor(), "as_of": AS_OF,
    }  # fmt: skip

    def kill(step: Progress) -> None:
        if step.partition == DAYS[3]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_score(lake, nobody(), progress=kill, **arguments)
    assert rows_of(lake, "back").num_rows == 2 * ROWS
    done = back_score(lake, nobody(), **arguments)
    assert [result.reused for _, result in done.scored] == [True, False]
    ids = rows_of(lake, "back")["prediction_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 4 * ROWS


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"partitions": ["2030-01-01"]}, "not_found.partition"),
        ({"time_zone": "Mars/Olympus"}, "argument.time_zone"),
        ({"on_no_champion": "guess"}, "argument.on_no_champion"),
        ({"dataset": "whole"}, "argument.partition_day"),
    ],
)
def test_champions_of_what_is_no_day_are_refused(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef, change: dict[str, Any], code: str
) -> None:
    from airflow_provider_xops.lake.commit import Segment, commit

    if change.get("dataset") == "whole":
        segment = Segment("all", "f", lambda: day(DAYS[0]).to_reader())
        change = {"dataset": commit(lake, "w", [segment], actor=an_actor(), as_of=AS_OF).record.ref}
    with pytest.raises(XOpsError) as caught:
        plan_with_champions(lake, model_name=NAME, **{"dataset": dataset, **change})
    assert caught.value.code == code


def test_threads_that_score_at_once_lose_nothing_when_the_table_is_new_and_when_it_gets_columns(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for reasons in (0, 1):
        with ThreadPoolExecutor(4) as pool:
            futures = [
                pool.submit(scored, lake, models[2], dataset, partitions=[name], reasons=reasons)
                for name in DAYS
            ]
            results = [future.result() for future in futures]
        assert not any(result.reused for result in results)
        rows = rows_of(lake)
        ids = rows["prediction_id"].to_pylist()
        assert len(set(ids)) == len(ids) == 4 * ROWS
        assert sorted(set(rows["input_partition"].to_pylist())) == list(DAYS)
        assert ("reason_1" in rows.column_names) is bool(reasons)
    assert rows["reason_1"].null_count == 0


def test_an_empty_plan_is_refused(lake: Lake, dataset: DatasetRef) -> None:
    with pytest.raises(XOpsError) as caught:
        back_score(lake, nobody(), plan=[], dataset=dataset, output_table="b", actor=an_actor(), as_of=AS_OF)
    assert caught.value.code == "argument.empty"
