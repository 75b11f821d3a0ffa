"""The operators of scoring at scale and of labels, on a real lake; only MLflow is left out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.operators.model import (
    JoinLabelsOperator,
    PartitionsToScoreOperator,
    ScoreDatasetOperator,
)
from airflow_provider_xops.records import DatasetRef, ModelVersion, PromotionOutcome
from airflow_provider_xops.version_compat import AirflowFailException, AirflowSkipException, Asset
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

MakeContext = Callable[..., dict[str, Any]]


@pytest.fixture
def dataset(lake: Lake) -> DatasetRef:
    return fill(lake)


@pytest.fixture
def models(lake: Lake, dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch) -> dict[int, ModelVersion]:
    without_mlflow(monkeypatch)
    for operator in (ScoreDatasetOperator, PartitionsToScoreOperator):
        monkeypatch.setattr(operator, "registry", lambda self: nobody(), raising=False)
        monkeypatch.setattr(operator, "link_model", lambda *args: None, raising=False)
    return record_models(lake, dataset)


def scoring(context: dict[str, Any], **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "table": "flights", "model_name": NAME, "model_version": 2, "output_table": "predictions",
        "keep_columns": ["id"], **changes,
    }  # fmt: skip
    return ScoreDatasetOperator(task_id="score", **given).execute(context)


def labels_in(lake: Lake, *days: str) -> None:
    for name in days:
        part = day(name).select(["id", "late"])
        commit(lake, "outcomes", [Segment(name, name, part.to_reader)], actor=an_actor(), as_of=AS_OF)


def joining(context: dict[str, Any], **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "predictions": "predictions", "labels_table": "outcomes", "label_column": "late", "on": "['id']",
        "output_table": "labeled", **changes,
    }  # fmt: skip
    return JoinLabelsOperator(task_id="labels", **given).execute(context)


def test_shares_pin_the_version_the_model_and_every_partition(
    lake: Lake, models: dict[int, ModelVersion], dataset: DatasetRef, make_context: MakeContext
) -> None:
    decide(lake, models[1], AS_OF, PromotionOutcome.PROMOTED)
    plan = PartitionsToScoreOperator(
        task_id="shares", table="flights", model_name=NAME, rows_per_task="90", outlets=[Asset("a")]
    )
    shares = plan.execute(make_context())
    assert [share["partition"] for share in shares] == [f"{DAYS[0]}..{DAYS[2]}", DAYS[3]]
    assert plan.outlets == []
    # a promotion and a newer version meanwhile change nothing for the tasks of this run
    decide(lake, models[2], AS_OF, PromotionOutcome.PROMOTED)
    fill(lake, seed=9)
    for number, share in enumerate(shares):
        told = ScoreDatasetOperator(task_id="score", output_table="predictions", **share).execute(
            make_context(map_index=number)
        )
        assert told["scored_rows"] == (3 * ROWS, ROWS)[number]
    rows = read.scan(lake, head(lake, "predictions")).read_all()
    assert set(rows["model_version"].to_pylist()) == {1}
    assert set(rows["input_version"].to_pylist()) == {dataset.version}
    assert rows.num_rows == 4 * ROWS


@pytest.mark.parametrize("change", [{"rows_per_task": 0}, {"max_tasks": "0"}, {"rows_per_task": "x"}])
def test_shares_of_nothing_are_refused(
    models: dict[int, ModelVersion], make_context: MakeContext, change: dict[str, Any]
) -> None:
    plan = PartitionsToScoreOperator(
        task_id="shares", table="flights", model_name=NAME, model_version=1, **change
    )
    with pytest.raises(AirflowFailException, match="argument"):
        plan.execute(make_context())


@pytest.mark.parametrize("reasons", [2, "2", {"top": 2}, '{"top": 2, "background": 10}'])
def test_reasons_may_come_from_a_template(
    lake: Lake, models: dict[int, ModelVersion], make_context: MakeContext, reasons: Any
) -> None:
    scoring(make_context(), partition=DAYS[0], reasons=reasons)
    names = read.schema_of(lake, head(lake, "predictions")).names
    assert [name for name in names if name.startswith("reason_")] == [
        "reason_1", "reason_1_contribution", "reason_2", "reason_2_contribution", "reason_base",
        "reason_rest",
    ]  # fmt: skip


def test_back_scoring_and_the_champions_of_the_days(
    lake: Lake, models: dict[int, ModelVersion], make_context: MakeContext
) -> None:
    decide(lake, models[1], datetime(2025, 3, 2, 9, tzinfo=UTC), PromotionOutcome.PROMOTED)
    decide(lake, models[2], datetime(2025, 3, 4, 9, tzinfo=UTC), PromotionOutcome.PROMOTED)
    production = scoring(make_context(), partition=f"{DAYS[0]}..{DAYS[3]}")
    assert production["scored_rows"] == 4 * ROWS
    again = scoring(make_context(), partition=DAYS[0], purpose="back_scoring")
    assert (again["scored_rows"], again["reused"]) == (ROWS, False)
    of_the_day: dict[str, Any] = {
        "model_version": None, "champion_of_the_day": True, "on_missing_model": "skip",
    }  # fmt: skip
    told = scoring(make_context(), output_table="back", **of_the_day)
    assert (told["scored_rows"], told["reused"]) == (3 * ROWS, False)
    assert len(told["scoring_runs"]) == 3
    assert scoring(make_context(), output_table="back", **of_the_day)["reused"]
    with pytest.raises(AirflowSkipException):
        scoring(make_context(), partition=DAYS[0], **of_the_day)
    with pytest.raises(AirflowFailException, match=r"not_found\.champion"):
        scoring(make_context(), **{**of_the_day, "on_missing_model": "fail"})
    with pytest.raises(AirflowFailException, match=r"argument\.champion_of_the_day"):
        scoring(make_context(), **{**of_the_day, "model_version": 1})
    with pytest.raises(AirflowFailException, match=r"argument\.purpose"):
        scoring(make_context(), purpose="fun")


def test_labels_join_what_their_event_is_about(
    lake: Lake, models: dict[int, ModelVersion], make_context: MakeContext
) -> None:
    scoring(make_context())
    labels_in(lake, DAYS[0], DAYS[1])
    event = lake.evidence.resolve(_version_id(lake, "outcomes"), "versions").to_json()
    told = joining(make_context(events=[("outcomes", event)]), outlets=[Asset("labeled")])
    # the event is about the second day alone
    assert (told["joined"], told["waiting"], told["unmatched"], told["reused"]) == (ROWS, 0, 0, False)
    assert told["partitions"] == [DAYS[1]]
    # by hand, or where the table is named as it is, it is about everything
    named = joining(make_context(events=[("outcomes", event)]), labels="outcomes", output_table="named")
    assert (named["joined"], named["waiting"]) == (2 * ROWS, 2 * ROWS)
    everything = joining(make_context())
    assert (everything["joined"], everything["waiting"]) == (2 * ROWS, 2 * ROWS)
    assert len(everything["label_joins"]) == 4
    # or about the last ones
    last = joining(make_context(), last_partitions="1")
    assert (last["joined"], last["waiting"], last["reused"]) == (0, ROWS, True)


def _version_id(lake: Lake, table: str) -> str:
    from airflow_provider_xops.lake.history import stored_record

    record = stored_record(lake, head(lake, table))
    assert record is not None
    return record.record_id


def test_labels_without_predictions_fail_or_skip(
    lake: Lake, models: dict[int, ModelVersion], make_context: MakeContext
) -> None:
    labels_in(lake, DAYS[0])
    with pytest.raises(AirflowFailException, match=r"not_found\.table"):
        joining(make_context())
    with pytest.raises(AirflowSkipException):
        joining(make_context(), on_no_predictions="skip")
    scoring(make_context(), partition=DAYS[1])
    event = lake.evidence.resolve(_version_id(lake, "outcomes"), "versions").to_json()
    events = [("outcomes", event)]
    with pytest.raises(AirflowFailException, match=r"not_found\.partition"):
        joining(make_context(events=events))
    with pytest.raises(AirflowSkipException):
        joining(make_context(events=events), on_no_predictions="skip")
    with pytest.raises(AirflowFailException, match=r"argument\.last_partitions"):
        joining(make_context(), last_partitions=0)
