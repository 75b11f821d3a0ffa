"""Labels joined to predictions: the same whatever came first, how often, and who was killed in between."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import NotFoundError, Superseded, XOpsError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.evidence import evidence_path
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import Actor, DatasetRef, LabelJoin, WriteMode, digest_of
from airflow_provider_xops.serving.labels import LabelsJoined, join_labels, label_history
from airflow_provider_xops.settings import LakeSettings

AS_OF = datetime(2026, 1, 15, tzinfo=UTC)
DAYS = ("2013-01-01", "2013-01-02")
PREFIX = {DAYS[0]: "a" * 24, DAYS[1]: "b" * 24}
SECRET = "N328NB"

Write = Callable[..., DatasetRef]


def an_actor(fence: int = 1) -> Actor:
    return Actor.user("tester", key="join", fence=fence)


def write(
    lake: Lake, table: str, partition: str, rows: dict[str, Any], *, mode: WriteMode = WriteMode.REPLACE,
    batch: str | None = None, schema: pa.Schema | None = None,
) -> DatasetRef:  # fmt: skip
    made = pa.table(rows, schema=schema)
    content = digest_of([made.to_pydict(), table, partition]) if schema is None else batch or "f"
    segment = Segment(partition, content, made.to_reader, batch_id=batch)
    return commit(lake, table, [segment], mode=mode, actor=an_actor(), as_of=AS_OF).record.ref


def predictions(lake: Lake, *, rows: int = 4, days: tuple[str, ...] = DAYS) -> DatasetRef:
    """What scoring leaves: an append table with ids, keys and predictions; flights repeat on every day."""
    for day in days:
        ref = write(
            lake, "predictions", day,
            {
                "prediction_id": [f"{PREFIX[day]}-{n}" for n in range(rows)],
                "flight": list(range(rows)),
                "plane": [SECRET] * rows,
                "prediction": [n % 2 for n in range(rows)],
                "score": [n / 10 for n in range(rows)],
                "model_version": [3] * rows,
            },
            mode=WriteMode.APPEND, batch=f"score/{day}",
        )  # fmt: skip
    return ref


def outcomes(lake: Lake, day: str, labels: dict[int, int | None], table: str = "outcomes") -> DatasetRef:
    schema = pa.schema([("flight", pa.int64()), ("late", pa.int64())])
    made = pa.table({"flight": list(labels), "late": list(labels.values())}, schema=schema)
    segment = Segment(day, digest_of([[str(k), v] for k, v in labels.items()]), made.to_reader)
    return commit(lake, table, [segment], actor=an_actor(), as_of=AS_OF).record.ref


def joined(lake: Lake, labels: DatasetRef, **changes: Any) -> LabelsJoined:
    arguments: dict[str, Any] = {
        "predictions": head(lake, "predictions"), "labels": labels, "label_column": "late",
        "output_table": "labeled", "on": ["flight"], "actor": an_actor(), "as_of": AS_OF, **changes,
    }  # fmt: skip
    return join_labels(lake, **arguments)


def labels_of(lake: Lake, result: LabelsJoined | DatasetRef) -> dict[str, Any]:
    ref = result if isinstance(result, DatasetRef) else result.dataset_out.ref
    rows = read.scan(lake, ref).read_all()
    ids = rows["prediction_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, rows["label"].to_pylist(), strict=True))


def test_a_label_is_joined_to_the_prediction_of_its_key_in_its_partition(lake: Lake) -> None:
    ref = predictions(lake)
    before = read.content_digest(lake, ref)
    outcomes(lake, DAYS[0], {0: 1, 2: 0, 9: 1})
    result = joined(lake, outcomes(lake, DAYS[1], {1: 1}))

    assert labels_of(lake, result) == {"a" * 24 + "-0": 1, "a" * 24 + "-2": 0, "b" * 24 + "-1": 1}
    rows = read.scan(lake, result.dataset_out.ref).read_all()
    assert rows.column_names == [
        "prediction_id", "flight", "plane", "prediction", "score", "model_version", "label",
        "label_partition",
    ]  # fmt: skip
    assert rows["label_partition"].to_pylist() == [DAYS[0], DAYS[0], DAYS[1]]
    figures = [(join.partition, join.joined, join.waiting, join.unmatched) for join in result.joins]
    assert figures == [(DAYS[0], 2, 2, 1), (DAYS[1], 1, 3, 0)]
    assert (result.joined, result.waiting, result.unmatched, result.reused) == (3, 5, 1, False)
    # nothing of it reached the predictions, or what they were made from
    assert head(lake, "predictions") == ref
    assert read.content_digest(lake, ref) == before
    assert result.dataset_out.parents == (ref, head(lake, "outcomes"))


def test_joining_again_changes_nothing_and_a_lost_record_is_written(lake: Lake) -> None:
    predictions(lake)
    labels = outcomes(lake, DAYS[0], {0: 1})
    first = joined(lake, labels)
    for record in first.joins:
        lake.storage.delete(evidence_path(LabelJoin.kind, record.record_id))
    again = joined(lake, labels, actor=an_actor(fence=2))
    assert (first.reused, again.reused) == (False, True)
    assert again.dataset_out.ref == first.dataset_out.ref == head(lake, "labeled")
    assert [lake.evidence.get(LabelJoin.kind, join.record_id) for join in first.joins] == list(first.joins)


def test_late_corrected_and_withdrawn_labels_end_in_what_is_true_now_and_the_past_is_kept(lake: Lake) -> None:
    predictions(lake, days=DAYS[:1])
    one = "a" * 24 + "-0"
    expected = []
    for number, content in enumerate([{1: 1}, {0: 0, 1: 1}, {0: 1, 1: 1}, {1: 1}]):
        moment = AS_OF + timedelta(days=number)
        result = joined(lake, outcomes(lake, DAYS[0], content), as_of=moment)
        expected.append((result.dataset_out.ref, content.get(0)))
        assert labels_of(lake, result) == {f"{'a' * 24}-{n}": label for n, label in content.items()}
    past = label_history(lake, "labeled", one, partition=DAYS[0])
    assert [(each.dataset, each.label) for each in past] == expected
    assert [each.recorded_at for each in past] == [AS_OF + timedelta(days=n) for n in range(4)]


def test_partitions_that_got_nothing_new_are_not_written_again(lake: Lake) -> None:
    predictions(lake)
    outcomes(lake, DAYS[0], {0: 1})
    first = joined(lake, outcomes(lake, DAYS[1], {0: 1}))
    second = joined(lake, outcomes(lake, DAYS[1], {0: 1, 1: 1}))
    assert first.dataset_out.partitions == DAYS
    assert second.dataset_out.partitions == DAYS[1:]


def test_a_partition_without_a_label_is_there_without_rows(lake: Lake) -> None:
    predictions(lake)
    result = joined(lake, outcomes(lake, "2012-12-31", {0: 1}))
    assert read.partitions(lake, result.dataset_out.ref) == list(DAYS)
    assert (result.joined, result.waiting, result.unmatched) == (0, 8, 0)
    assert labels_of(lake, result) == {}


def test_an_earlier_version_of_the_labels_does_not_overwrite_a_later_one(lake: Lake) -> None:
    predictions(lake)
    old = outcomes(lake, DAYS[0], {0: 0})
    new = outcomes(lake, DAYS[0], {0: 1})
    result = joined(lake, new)
    with pytest.raises(Superseded):
        joined(lake, old, actor=an_actor(fence=99))
    assert labels_of(lake, head(lake, "labeled")) == labels_of(lake, result) == {"a" * 24 + "-0": 1}


def test_predictions_that_came_later_get_their_labels(lake: Lake) -> None:
    predictions(lake, rows=2, days=DAYS[:1])
    labels = outcomes(lake, DAYS[0], {0: 1, 1: 0})
    joined(lake, labels)
    write(
        lake, "predictions", DAYS[0],
        {
            "prediction_id": ["c" * 24 + "-0"], "flight": [1], "plane": [SECRET], "prediction": [1],
            "score": [0.5], "model_version": [4],
        },
        mode=WriteMode.APPEND, batch="score with another model",
    )  # fmt: skip
    result = joined(lake, labels)
    assert labels_of(lake, result) == {"a" * 24 + "-0": 1, "a" * 24 + "-1": 0, "c" * 24 + "-0": 0}


def by_id(lake: Lake, partition: str, rows: list[tuple[str | None, Any, int]]) -> DatasetRef:
    schema = pa.schema([("prediction_id", pa.string()), ("late", pa.float64()), ("at", pa.int64())])
    made = pa.table(
        [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)],
        schema=schema,
    )
    segment = Segment(partition, digest_of([[str(cell) for cell in row] for row in rows]), made.to_reader)
    return commit(lake, "answers", [segment], actor=an_actor(), as_of=AS_OF).record.ref


def test_by_prediction_id_a_label_may_arrive_in_any_partition_and_the_newest_counts(lake: Lake) -> None:
    predictions(lake)
    a, b = ("a" * 24, "b" * 24)
    by_id(
        lake, "week-1", [(f"{a}-0", 1.0, 10), (f"{b}-1", 0.0, 10), (None, 1.0, 10), ("f" * 24 + "-7", 1.0, 1)]
    )
    labels = by_id(lake, "week-2", [(f"{a}-0", 0.0, 20), (f"{b}-1", float("nan"), 20), (f"{b}-2", 1.0, 5)])
    result = joined(lake, labels, on=["prediction_id"], newest_by="at")
    # the newest of the second one says that there is none
    assert labels_of(lake, result) == {f"{a}-0": 0.0, f"{b}-2": 1.0}
    assert result.unmatched == 2  # one without an id, one of a prediction that nobody knows
    # labels of predictions in partitions that were not asked for are not lost ones
    alone = joined(lake, labels, on=["prediction_id"], newest_by="at", partitions=[DAYS[0]], output_table="o")
    assert (alone.joined, alone.unmatched) == (1, 2)


def test_by_partition_the_last_one_counts(lake: Lake) -> None:
    predictions(lake)
    one = "a" * 24 + "-0"
    by_id(lake, "2013-01-09", [(one, 0.0, 1)])
    labels = by_id(lake, "2013-01-03", [(one, 1.0, 2)])
    result = joined(lake, labels, on=["prediction_id"], newest_by="partition")
    assert labels_of(lake, result) == {one: 0.0}


def test_different_labels_of_one_key_are_an_error_that_tells_no_value(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    predictions(lake)
    schema = pa.schema([("plane", pa.string()), ("late", pa.int64())])
    rows = pa.table({"plane": [SECRET, SECRET], "late": [0, 1]}, schema=schema)
    labels = commit(
        lake, "outcomes", [Segment(DAYS[0], "f", rows.to_reader)], actor=an_actor(), as_of=AS_OF
    ).record.ref
    with pytest.raises(XOpsError) as caught:
        joined(lake, labels, on=["plane"])
    assert caught.value.code == "data.duplicate_labels"
    assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text
    assert not table_exists(lake, "labeled")


def test_a_key_that_is_nan_is_nobodys(lake: Lake) -> None:
    nan = float("nan")
    rows = {"prediction_id": ["a" * 24 + "-0", "a" * 24 + "-1"], "x": [nan, 1.0], "prediction": [0, 1]}
    segment = Segment(DAYS[0], "f", pa.table(rows).to_reader, batch_id="score")
    commit(lake, "predictions", [segment], mode=WriteMode.APPEND, actor=an_actor(), as_of=AS_OF)
    known = Segment(DAYS[0], "f", pa.table({"x": [nan, 1.0], "late": [1, 0]}).to_reader)
    labels = commit(lake, "outcomes", [known], actor=an_actor(), as_of=AS_OF).record.ref
    result = joined(lake, labels, on=["x"])
    assert labels_of(lake, result) == {"a" * 24 + "-1": 0}
    assert (result.waiting, result.unmatched) == (1, 1)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_label_that_does_not_say_when_it_was_made_is_the_oldest(lake: Lake, nothing: float | None) -> None:
    predictions(lake, days=DAYS[:1])
    rows = pa.table({"flight": [0, 0], "late": [1, 0], "at": pa.array([nothing, 5.0], pa.float64())})
    segment = Segment(DAYS[0], "f", rows.to_reader)
    labels = commit(lake, "outcomes", [segment], actor=an_actor(), as_of=AS_OF).record.ref
    assert labels_of(lake, joined(lake, labels, newest_by="at")) == {"a" * 24 + "-0": 0}


def test_the_same_label_twice_is_one_label(lake: Lake) -> None:
    predictions(lake, days=DAYS[:1])
    rows = pa.table({"flight": [0, 0, 1], "late": pa.array([1, 1, None], pa.int64())})
    labels = commit(
        lake, "outcomes", [Segment(DAYS[0], "f", rows.to_reader)], actor=an_actor(), as_of=AS_OF
    ).record.ref
    assert labels_of(lake, joined(lake, labels)) == {"a" * 24 + "-0": 1}


def test_a_prediction_in_the_shadow_of_another_has_its_label(lake: Lake) -> None:
    rows = {
        "prediction_id": ["a" * 24 + "-0", "c" * 24 + "-0"], "prediction": [0, 1],
        "shadow_of": pa.array([None, "a" * 24 + "-0"], pa.string()),
    }  # fmt: skip
    made = pa.table(rows)
    segment = Segment(DAYS[0], "log", made.to_reader, batch_id="flush-1")
    commit(lake, "predictions", [segment], mode=WriteMode.APPEND, actor=an_actor(), as_of=AS_OF)
    labels = by_id(lake, "w", [("a" * 24 + "-0", 1.0, 1)])
    result = joined(lake, labels, on=["prediction_id"])
    assert labels_of(lake, result) == {"a" * 24 + "-0": 1.0, "c" * 24 + "-0": 1.0}
    assert result.unmatched == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"output_table": "predictions"}, "argument.output_table"),
        ({"output_table": "outcomes"}, "argument.output_table"),
        ({"on": []}, "argument.join_keys"),
        ({"on": ["flight", "flight"]}, "argument.join_keys"),
        ({"on": ["gate"]}, "argument.join_keys"),
        ({"on": ["prediction_id"]}, "argument.join_keys"),
        ({"label_column": "gate"}, "argument.label_column"),
        ({"label_column": "flight"}, "argument.label_column"),
        ({"newest_by": "gate"}, "argument.newest_by"),
        ({"memory_limit": "lots"}, "argument.memory_limit"),
        ({"memory_limit": "-1"}, "argument.memory_limit"),
        ({"memory_limit": 5}, "argument.memory_limit"),
        ({"label_as": "score"}, "argument.label_as"),
        ({"label_as": "label_partition"}, "argument.label_as"),
        ({"partitions": ["2014-01-01"]}, "not_found.partition"),
        ({"partitions": []}, "not_found.partition"),
        ({"labels": "texts"}, "data.key_type"),
    ],
)
def test_what_cannot_be_joined_is_refused_and_nothing_is_written(
    lake: Lake, change: dict[str, Any], code: str
) -> None:
    predictions(lake)
    refs = {"outcomes": outcomes(lake, DAYS[0], {0: 1})}
    refs["texts"] = write(lake, "texts", DAYS[0], {"flight": ["0"], "late": [1]})
    named = change.pop("labels", "outcomes")
    with pytest.raises(XOpsError) as caught:
        joined(lake, refs[named], **change)
    assert caught.value.code == code
    assert caught.value.todo
    assert not caught.value.retryable
    assert not table_exists(lake, "labeled")


def test_the_label_keeps_its_name_in_the_output(lake: Lake) -> None:
    predictions(lake)
    labels = outcomes(lake, DAYS[0], {0: 1})
    joined(lake, labels)
    with pytest.raises(XOpsError) as caught:
        joined(lake, labels, label_as="truth")
    assert caught.value.code == "argument.label_as"


def test_new_columns_of_the_predictions_go_along(lake: Lake) -> None:
    predictions(lake, days=DAYS[:1])
    labels = outcomes(lake, DAYS[0], {0: 1})
    joined(lake, labels)
    rows = {
        "prediction_id": ["c" * 24 + "-0"], "flight": [0], "plane": [SECRET], "prediction": [1],
        "score": [0.5], "model_version": [4], "purpose": ["back_scoring"],
    }  # fmt: skip
    segment = Segment(DAYS[0], "g", pa.table(rows).to_reader, batch_id="later")
    policy = {"added": "evolve", "removed": "fill_null"}
    commit(
        lake, "predictions", [segment], mode=WriteMode.APPEND, evolve=policy, actor=an_actor(), as_of=AS_OF
    )
    result = joined(lake, labels)
    found = read.scan(lake, result.dataset_out.ref, columns=["prediction_id", "purpose", "label"]).read_all()
    assert found["purpose"].to_pylist() == [None, "back_scoring"]
    assert found["label"].to_pylist() == [1, 1]
    past = label_history(lake, "labeled", "a" * 24 + "-0", partition=DAYS[0])
    assert [each.label for each in past] == [1]


def test_the_history_of_a_table_that_is_not_there_is_an_error(lake: Lake) -> None:
    with pytest.raises(NotFoundError):
        label_history(lake, "labeled", "a" * 24 + "-0", partition=DAYS[0])


_LABELS = st.dictionaries(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 1)), max_size=5)
_STEPS = st.lists(
    st.tuples(st.sampled_from(DAYS), _LABELS, st.booleans(), st.booleans()), min_size=1, max_size=4
)


@settings(max_examples=5)
@given(steps=_STEPS)
def test_any_order_of_arrivals_and_joins_ends_in_the_join_of_what_is_there(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="xops-labels-") as folder:
        settings_ = LakeSettings(uri=str(Path(folder) / "lake"))
        init_lake(settings_, actor=an_actor(), as_of=AS_OF)
        lake = open_lake(settings_)
        predictions(lake)
        truth: dict[str, dict[int, int | None]] = {}
        for day, content, join_now, twice in steps:
            labels = outcomes(lake, day, content)
            truth[day] = content
            for _ in range(join_now + (join_now and twice)):
                joined(lake, labels, partitions=[day] if twice else None)
        result = joined(lake, head(lake, "outcomes"))
        expected = {
            f"{PREFIX[day]}-{flight}": label
            for day, content in truth.items()
            for flight, label in content.items()
            if label is not None and flight < 4
        }
        assert labels_of(lake, result) == expected
        assert result.joined == len(expected)
        assert result.waiting == 8 - len(expected)
        lost = [
            f for content in truth.values() for f, label in content.items() if label is not None and f > 3
        ]
        assert result.unmatched == len(lost)
