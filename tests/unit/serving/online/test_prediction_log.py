"""The prediction log: every row once, whatever the lake does; no request ever waits for it."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError, DataError, LakeError, UnavailableError
from airflow_provider_xops.lake.history import version_record
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import partitions, verify_version
from airflow_provider_xops.lake.tables import head, open_table, table_schema
from airflow_provider_xops.records import DatasetVersion, VariantRole, WriteMode
from airflow_provider_xops.serving.online import prediction_log as module
from airflow_provider_xops.serving.online._log_rows import _arrow, _plain, tables_by_day
from airflow_provider_xops.serving.online.prediction_log import LOG_COLUMNS
from airflow_provider_xops.serving.online.sessions import id_prefix, key_digest
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.helpers import put, segment
from tests.unit.serving.online.log_cases import (
    ACTOR,
    NOON,
    Caller,
    Clock,
    Switch,
    logged,
    make_log,
    session_of,
)

SECONDS = 60.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(module, "LONGEST_WAIT_SECONDS", 0.02)


def test_what_was_offered_is_in_the_table_after_the_end(lake: Lake) -> None:
    log, caller = make_log(lambda: lake), Caller()

    assert log.offer(caller.request([0, 1, 1], key="customer 7"))
    assert log.offer(caller.request([1]))
    assert log.close(SECONDS) == 0

    rows = logged(lake)
    assert [row["prediction_id"] for row in rows] == [f"{id_prefix(caller.session)}-{n}" for n in range(4)]
    assert [row["request_id"] for row in rows] == [rows[0]["prediction_id"]] * 3 + [rows[3]["prediction_id"]]
    assert [row["prediction"] for row in rows] == [0, 1, 1, 1]
    assert list(rows[0]) == list(LOG_COLUMNS)
    assert {key: rows[0][key] for key in ("model_name", "model_version", "alias", "variant", "server")} == {
        "model_name": "delay", "model_version": 1, "alias": "champion", "variant": "primary",
        "server": "gate-1",
    }  # fmt: skip
    assert (rows[0]["at"], rows[0]["duration_ms"], rows[0]["score"]) == (NOON, 2.5, 0.1)
    assert (rows[0]["request_key"], rows[3]["request_key"]) == (key_digest(lake.lake_id, "customer 7"), None)
    assert verify_version(lake, head(lake, "delay_log")) == []


def test_columns_that_batch_predictions_have_are_of_the_same_types(lake: Lake) -> None:
    log = make_log(lambda: lake)
    log.offer(Caller().request())
    log.close(SECONDS)

    schema = table_schema(open_table(lake, "delay_log"))
    assert {name: schema.field(name).type for name in ("prediction_id", "prediction", "score")} == {
        "prediction_id": pa.string(), "prediction": pa.int64(), "score": pa.float64(),
    }  # fmt: skip
    assert schema.field("model_version").type == pa.int64()
    assert schema.field("at").type == pa.timestamp("us", "UTC")


def test_a_flush_is_one_commit_without_a_record_of_its_own(lake: Lake) -> None:
    log, caller = make_log(lambda: lake), Caller()
    for _ in range(3):
        log.offer(caller.request())
    assert log.flush(SECONDS)
    log.offer(caller.request())
    assert log.flush(SECONDS)

    assert head(lake, "delay_log").version == 1
    assert list(lake.evidence.all(DatasetVersion.kind)) == []
    assert version_record(lake, head(lake, "delay_log")).rows == 8
    assert (log.stats().written, log.stats().flushes, log.stats().queued) == (8, 2, 0)
    assert log.close(SECONDS) == 0


def test_a_full_flush_is_written_without_waiting(lake: Lake) -> None:
    log, caller = make_log(lambda: lake, flush_rows=4), Caller()
    log.offer(caller.request())
    log.offer(caller.request())

    with log._changed:
        assert log._changed.wait_for(lambda: log._written == 4, SECONDS)
    log.close(SECONDS)


def test_a_single_row_is_written_when_its_time_is_over(lake: Lake) -> None:
    log = make_log(lambda: lake, flush_seconds=0.05)
    log.offer(Caller().request([1]))

    with log._changed:
        assert log._changed.wait_for(lambda: log._written == 1, SECONDS)
    log.close(SECONDS)


def test_a_flush_over_midnight_is_two_partitions_of_one_commit(lake: Lake) -> None:
    clock = Clock(datetime(2026, 1, 15, 23, 59, 59, tzinfo=UTC))
    log, caller = make_log(lambda: lake, clock=clock), Caller(clock=clock)
    log.offer(caller.request([0]))
    clock.move(seconds=2)
    log.offer(caller.request([1]))
    log.close(SECONDS)

    assert partitions(lake, head(lake, "delay_log")) == ["2026-01-15", "2026-01-16"]
    assert head(lake, "delay_log").version == 0
    assert logged(lake, "prediction") == [0, 1]


def test_while_the_lake_is_down_rows_wait_then_all_are_written_once(lake: Lake) -> None:
    switch = Switch(lake, down=True)
    log, caller = make_log(switch, flush_rows=2), Caller()
    for _ in range(5):
        log.offer(caller.request())
    with log._changed:
        assert log._changed.wait_for(lambda: log._failed > 2, SECONDS)
    stats = log.stats()
    assert (stats.queued, stats.written, stats.dropped) == (10, 0, 0)
    assert stats.last_error == "[unavailable.storage] the storage did not answer"

    switch.down = False

    assert log.close(SECONDS) == 0
    assert sorted(logged(lake, "prediction_id")) == sorted(
        f"{id_prefix(caller.session)}-{n}" for n in range(10)
    )
    assert (log.stats().written, log.stats().last_error) == (10, None)


def test_a_full_queue_drops_new_rows_and_counts_them(lake: Lake) -> None:
    switch = Switch(lake, down=True)
    log, caller = make_log(switch, max_rows=5, flush_rows=5), Caller()

    taken = [log.offer(caller.request()) for _ in range(4)]

    assert taken == [True, True, False, False]
    assert (log.stats().queued, log.stats().dropped) == (4, 4)
    assert (log.has_room(1), log.has_room(2)) == (True, False)
    switch.down = False
    assert log.close(SECONDS) == 0
    assert len(logged(lake, "prediction_id")) == 4


def test_a_log_that_refuses_takes_every_answer_that_was_let_in(lake: Lake) -> None:
    switch = Switch(lake, down=True)
    log, caller = make_log(switch, max_rows=5, flush_rows=5, overflow="refuse"), Caller()
    log.offer(caller.request([1] * 4))

    assert not log.has_room(2)
    # More than ever fit: only where nothing waits.
    assert not log.has_room(6)
    assert make_log(switch, max_rows=5, flush_rows=5, overflow="refuse").has_room(6)
    assert log.offer(caller.request())
    assert not log.offer(caller.request(variant=VariantRole.SHADOW))
    switch.down = False
    assert log.close(SECONDS) == 0
    assert len(logged(lake, "prediction_id")) == 6


def test_rows_under_way_take_room_until_they_are_written(lake: Lake) -> None:
    opening, go_on = threading.Event(), threading.Event()

    def slow() -> Lake:
        opening.set()
        assert go_on.wait(SECONDS)
        return lake

    log, caller = make_log(slow, max_rows=4, flush_rows=2), Caller()
    log.offer(caller.request())
    assert opening.wait(SECONDS)

    assert [log.offer(caller.request()), log.offer(caller.request())] == [True, False]
    go_on.set()
    assert log.close(SECONDS) == 0


def test_offering_never_waits_for_a_lake_that_hangs(lake: Lake) -> None:
    opening, go_on = threading.Event(), threading.Event()

    def hangs() -> Lake:
        opening.set()
        go_on.wait(SECONDS)
        return lake

    log, caller = make_log(hangs, flush_rows=1), Caller()
    log.offer(caller.request())
    assert opening.wait(SECONDS)

    # Were offer() to wait for the flush, this thread would never set the event that ends it.
    for _ in range(100):
        assert log.offer(caller.request([1]))
    assert log.stats().queued == 102
    go_on.set()
    assert log.close(SECONDS) == 0


def test_after_the_end_nothing_is_taken_and_it_is_said(lake: Lake) -> None:
    log, caller = make_log(lambda: lake), Caller()
    log.close(SECONDS)

    assert not log.offer(caller.request())
    assert not log.has_room(1)
    assert log.stats().dropped == 2


def test_an_end_that_takes_too_long_says_how_many_rows_are_lost(lake: Lake) -> None:
    log, caller = make_log(Switch(lake, down=True)), Caller()
    log.offer(caller.request([1, 1, 1]))

    assert log.close(0.2) == 3
    assert log._thread is not None
    log._thread.join(SECONDS)
    assert not log._thread.is_alive()


def _lose_answer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real = DeltaTable.create_write_transaction

    def lost(self: Any, *args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(DeltaTable, "create_write_transaction", real)
        real(self, *args, **kwargs)
        raise error

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lost)


def test_a_flush_whose_answer_was_lost_is_not_written_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, caller = make_log(lambda: lake), Caller()
    log.offer(caller.request())
    log.flush(SECONDS)
    _lose_answer(monkeypatch, OSError("error sending request: operation timed out"))
    log.offer(caller.request())

    assert log.close(SECONDS) == 0

    assert Counter(logged(lake, "prediction_id")).most_common(1)[0][1] == 1
    assert len(logged(lake, "prediction_id")) == 4
    assert (log.stats().written, log.stats().failed_flushes) == (4, 1)
    assert head(lake, "delay_log").version == 1


def test_the_table_keeps_one_fence_for_all_flushes_of_a_log(lake: Lake) -> None:
    log, caller = make_log(lambda: lake), Caller()
    for _ in range(3):
        log.offer(caller.request())
        log.flush(SECONDS)
    log.close(SECONDS)

    handle = open_table(lake, "delay_log")
    assert handle.transaction_version(f"xops:2026-01-15/{log._stream}") == 3
    assert handle.transaction_version(f"xops:2026-01-15/{log._stream}/1") is None


def test_two_logs_of_one_server_name_are_two_streams(lake: Lake) -> None:
    first, second = make_log(lambda: lake), make_log(lambda: lake)
    one, other = Caller(session_of(1)), Caller(session_of(2))
    for log, caller in ((first, one), (second, other)):
        log.offer(caller.request())
        log.flush(SECONDS)
    assert [first.close(SECONDS), second.close(SECONDS)] == [0, 0]

    assert sorted(logged(lake, "model_version")) == [1, 1, 2, 2]


def test_features_that_are_asked_for_are_kept(lake: Lake) -> None:
    log, caller = make_log(lambda: lake, keep_columns=["distance", "carrier", "gone"]), Caller()
    frame = pd.DataFrame({"carrier": ["UA", np.nan], "distance": [719.0, np.nan], "tail": ["N1", "N2"]})
    log.offer(caller.request(columns=frame))
    log.close(SECONDS)

    rows = logged(lake, "carrier", "distance")
    assert rows == [{"carrier": "UA", "distance": 719.0}, {"carrier": None, "distance": None}]
    assert "tail" not in table_schema(open_table(lake, "delay_log")).names


def test_all_features_of_any_kind_of_columns_are_kept(lake: Lake) -> None:
    log, caller = make_log(lambda: lake, keep_columns=["*"]), Caller()
    moment = pd.Timestamp("2026-01-01T10:00:00")
    columns = {"n": [1, 2], "t": ["a", None], "score": [1.5, None], "day": [moment, pd.NaT]}
    log.offer(caller.request(columns={key: np.array(value, dtype=object) for key, value in columns.items()}))
    log.offer(caller.request(columns=pd.DataFrame(columns)))
    log.offer(caller.request(columns=pa.table({"n": [1, 2], "t": ["a", None], "score": [1.5, None]})))
    log.close(SECONDS)

    rows = logged(lake, "n", "t", "feature_score", "day")
    assert [row["n"] for row in rows] == [1, 2] * 3
    assert [row["t"] for row in rows] == ["a", None] * 3
    assert [row["feature_score"] for row in rows] == [1.5, None] * 3
    assert [row["day"] for row in rows] == [moment.tz_localize("UTC"), None] * 2 + [None, None]


@given(
    requests=st.lists(
        st.one_of(
            st.none(),
            st.lists(
                st.tuples(
                    st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6)),
                    st.one_of(st.none(), st.sampled_from(["UA", "B6"])),
                ),
                min_size=1,
                max_size=3,
            ),
        ),
        min_size=1,
        max_size=8,
    ),
    text=st.booleans(),
    form=st.sampled_from(["frame", "mapping", "arrow", "mixed"]),
)
def test_kept_columns_hold_what_the_requests_held(
    requests: list[list[tuple[float, str | None]] | None], text: bool, form: str
) -> None:
    caller, batches, expected = Caller(), [], []
    for number, rows in enumerate(requests):
        if rows is None:
            batches.append(caller.request([1], predictions=None, scores=None, error="model.predict_failed"))
            expected.append((None, None))
            continue
        columns: dict[str, Any] = {"x": np.array([one for one, _ in rows])}
        if text:
            columns["t"] = np.array([other for _, other in rows], dtype=object)
        wanted = form if form != "mixed" else ("frame", "mapping", "arrow")[number % 3]
        made: Any = columns
        if wanted == "frame":
            made = pd.DataFrame(columns)
        elif wanted == "arrow":
            made = pa.table({name: pa.array(each, from_pandas=True) for name, each in columns.items()})
        batches.append(caller.request([1] * len(rows), columns=made))
        expected += [(None if one != one else one, other if text else None) for one, other in rows]

    (table,) = tables_by_day(batches, keep=["*"], lake_id="lake", known=None).values()

    missing = [None] * table.num_rows
    found = [table[name].to_pylist() if name in table.column_names else missing for name in ("x", "t")]
    assert list(zip(*found, strict=True)) == expected


def test_a_column_without_any_value_comes_with_its_first_one(lake: Lake) -> None:
    log, caller = make_log(lambda: lake, keep_columns=["*"]), Caller()
    log.offer(caller.request(columns={"n": [1.0, 2.0]}))
    log.flush(SECONDS)
    log.offer(caller.request(columns={"n": [3.0, 4.0], "new": ["a", "b"]}))
    log.close(SECONDS)

    rows = sorted(logged(lake, "n", "new"), key=lambda row: row["n"])
    assert [tuple(row.values()) for row in rows] == [(1.0, None), (2.0, None), (3.0, "a"), (4.0, "b")]


def test_columns_that_are_not_kept_are_not_held_in_memory(lake: Lake) -> None:
    log, caller = make_log(lambda: lake), Caller()
    log.offer(caller.request(columns={"n": [1.0, 2.0]}))

    assert log._waiting[0].columns is None
    log.close(SECONDS)


def test_a_failed_request_is_one_row_without_a_prediction(lake: Lake) -> None:
    log, caller = make_log(lambda: lake), Caller()
    log.offer(caller.request([1]))
    log.offer(caller.request([1] * 50, predictions=None, scores=None, error="model.predict_failed"))
    log.close(SECONDS)

    assert [(row["prediction"], row["error"]) for row in logged(lake, "prediction", "error")] == [
        (1, None),
        (None, "model.predict_failed"),
    ]


def test_versions_that_predict_numbers_and_whole_numbers_share_a_table(lake: Lake) -> None:
    log = make_log(lambda: lake)
    log.offer(Caller(session_of(1)).request([0.5, 1.5], scores=None))
    log.flush(SECONDS)
    log.offer(Caller(session_of(2)).request([2, 3], scores=None))
    log.close(SECONDS)

    assert sorted(logged(lake, "prediction")) == [0.5, 1.5, 2.0, 3.0]


def test_what_the_table_refuses_takes_no_other_rows_with_it(lake: Lake) -> None:
    good, bad = Caller(session_of(1)), Caller(session_of(2))
    log = make_log(lambda: lake)
    log.offer(good.request([0, 1]))
    log.flush(SECONDS)
    log.offer(good.request([1, 1]))
    log.offer(bad.request(["late", "on time"]))
    log.offer(good.request([0, 0]))

    assert log.close(SECONDS) == 0

    assert sorted(logged(lake, "prediction")) == [0, 0, 0, 1, 1, 1]
    stats = log.stats()
    assert (stats.written, stats.dropped, stats.queued) == (6, 2, 0)


def test_the_error_of_a_value_that_does_not_fit_names_its_column_only(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    log = make_log(lambda: lake)
    log.offer(Caller(session_of(1)).request([0, 1]))
    log.flush(SECONDS)
    log.offer(Caller(session_of(2)).request(["secret word", "other"]))
    log.close(SECONDS)

    assert "'prediction'" in caplog.text
    assert "secret" not in caplog.text


def test_a_table_of_another_mode_is_told_and_its_rows_are_dropped(lake: Lake) -> None:
    put(lake, "delay_log", segment("p", "1", {"a": [1]}), mode=WriteMode.REPLACE)
    log = make_log(lambda: lake)
    log.offer(Caller().request())
    log.flush(SECONDS)

    assert (log.stats().dropped, (log.stats().last_error or "")[:20]) == (2, "[data.mode_mismatch]"[:20])
    log.close(SECONDS)


def test_credentials_that_are_refused_for_a_while_lose_nothing(lake: Lake) -> None:
    answers = [LakeError("the storage refused access", code="lake.forbidden"), RuntimeError("boom 42")]

    def factory() -> Lake:
        if answers:
            raise answers.pop()
        return lake

    log = make_log(factory)
    log.offer(Caller().request())

    assert log.close(SECONDS) == 0
    assert (log.stats().written, log.stats().failed_flushes) == (2, 2)


def test_an_error_that_comes_for_ever_does_not_stop_the_log(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = make_log(lambda: lake)
    real = module.tables_by_day

    def broken(batches: Any, **options: Any) -> Any:
        if any(batch.session.model.version == 2 for batch in batches):
            raise RuntimeError("the value 123456 is wrong")
        return real(batches, **options)

    monkeypatch.setattr(module, "tables_by_day", broken)
    log.offer(Caller(session_of(2)).request())
    log.offer(Caller(session_of(1)).request())

    assert log.close(SECONDS) == 0
    assert (log.stats().written, log.stats().dropped) == (2, 2)
    assert "123456" not in caplog.text


def test_how_long_the_oldest_row_has_waited(lake: Lake) -> None:
    clock = Clock()
    log, caller = make_log(lambda: lake, clock=clock), Caller(clock=clock)
    assert log.stats().oldest_seconds is None
    log.offer(caller.request())
    clock.move(seconds=3)
    log.offer(caller.request())

    assert log.stats().oldest_seconds == 3
    log.close(SECONDS)
    assert log.stats().oldest_seconds is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"flush_rows": 0}, {"flush_rows": 11, "max_rows": 10}, {"flush_seconds": 0}, {"overflow": "block"},
        {"keep_columns": "carrier"}, {"flush_seconds": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_bounds_that_cannot_be_are_refused(lake: Lake, wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        make_log(lambda: lake, **wrong)

    assert caught.value.code == "argument.prediction_log"


@pytest.mark.parametrize("table", ["", "a/b", "delay__raw"])
def test_a_name_that_no_log_can_have_is_refused(lake: Lake, table: str) -> None:
    with pytest.raises(ArgumentError):
        module.PredictionLog(lambda: lake, table, server="s", clock=Clock(), actor=ACTOR)


@settings(max_examples=15)
@given(
    requests=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.booleans()), max_size=25),
    flush_rows=st.integers(1, 12),
    failures=st.lists(st.sampled_from(["down", "lost", "ok"]), max_size=8),
)
def test_every_row_is_written_once_or_counted_whatever_the_lake_does(
    requests: list[tuple[int, int, bool]],
    flush_rows: int,
    failures: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = LakeSettings(uri=str(tmp_path_factory.mktemp("lakes") / "lake"))
    init_lake(home, actor=ACTOR, as_of=NOON)
    lake, left = open_lake(home), list(failures)
    real = module.commit

    def moody(*args: Any, **kwargs: Any) -> Any:
        mood = left.pop() if left else "ok"
        if mood == "down":
            raise UnavailableError("no answer", code="unavailable.storage")
        result = real(*args, **kwargs)
        if mood == "lost":
            raise UnavailableError("the answer was lost", code="unavailable.storage")
        return result

    clock = Clock()
    callers = [Caller(session_of(number + 1), clock=clock) for number in range(3)]
    offered: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "commit", moody)
        log = make_log(lambda: lake, flush_rows=flush_rows, max_rows=20, clock=clock)
        for rows, who, next_day in requests:
            if next_day:
                clock.now += timedelta(days=1)
            request = callers[who].request([1] * rows)
            if log.offer(request):
                prefix = id_prefix(request.session)
                offered += [f"{prefix}-{number}" for number in range(request.first, request.first + rows)]
        assert log.close(SECONDS) == 0

    stats = log.stats()
    assert (stats.written, stats.queued) == (len(offered), 0)
    assert stats.dropped == sum(rows for rows, _, _ in requests) - len(offered)
    if offered:
        assert sorted(logged(lake, "prediction_id")) == sorted(offered)


@pytest.mark.parametrize(
    ("values", "dtype"), [(["a", None], "string"), ([True, None], "boolean"), ([1, None], "Int64")]
)
def test_a_missing_value_of_any_kind_is_null(values: list[Any], dtype: str) -> None:
    assert _arrow(_plain(pd.Series(values, dtype=dtype)), "x").to_pylist() == values


def test_a_number_beyond_64_bits_is_refused_and_not_turned_into_another_one() -> None:
    with pytest.raises(DataError) as raised:
        _arrow(_plain(pd.Series([2**63 + 5], dtype="uint64")), "x")

    assert raised.value.code == "data.log_type"


class Panic(BaseException):
    """What a library in Rust raises."""


def test_a_panic_does_not_end_the_log(lake: Lake) -> None:
    tries = []

    def opened() -> Lake:
        tries.append(1)
        if len(tries) == 1:
            raise Panic
        return lake

    log, caller = make_log(opened), Caller()
    log.offer(caller.request([0, 1]))

    assert log.flush(SECONDS)

    assert logged(lake, "prediction") == [0, 1]
    log.close(SECONDS)


def test_inputs_that_the_table_refuses_do_not_take_their_predictions_with_them(lake: Lake) -> None:
    log, caller = make_log(lambda: lake, keep_columns=["*"]), Caller()
    log.offer(caller.request([0, 1], columns={"n": [1.0, 2.0]}))
    log.flush(SECONDS)
    # Two versions that differ in a column, and names that only differ in how they are written.
    log.offer(caller.request([1, 1], columns={"n": ["a", "b"]}))
    log.flush(SECONDS)
    log.offer(caller.request([1], columns={"m": [1.0], "M": [2.0]}))
    log.offer(caller.request([1], predictions=None, scores=None, error="model.predict_failed"))

    assert log.close(SECONDS) == 0

    assert sorted(logged(lake, "prediction"), key=repr) == [0, 1, 1, 1, 1, None]
    stats = log.stats()
    assert (stats.written, stats.without_inputs, stats.dropped, stats.queued) == (6, 4, 0, 0)


def test_rows_that_are_written_are_not_kept_in_memory(lake: Lake) -> None:
    log, caller = make_log(lambda: lake, keep_columns=["*"]), Caller()
    batch = caller.request([0, 1], columns={"n": [1.0, 2.0]})
    gone = weakref.ref(batch)
    log.offer(batch)
    assert log.flush(SECONDS)

    del batch
    end = time.monotonic() + SECONDS
    while gone() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)

    assert gone() is None
    log.close(SECONDS)


@pytest.mark.parametrize("labels", [["late", "on time"], [1, 0], [0.5, 1.5]])
def test_requests_that_failed_first_do_not_decide_what_predictions_are(lake: Lake, labels: list[Any]) -> None:
    log, caller = make_log(lambda: lake), Caller()
    log.offer(caller.request([1], predictions=None, scores=None, error="model.predict_failed"))
    assert log.flush(SECONDS)
    assert [row["error"] for row in logged(lake)] == ["model.predict_failed"]
    log.offer(caller.request(labels))

    assert log.close(SECONDS) == 0

    assert log.stats().dropped == 0
    assert sorted(logged(lake, "prediction"), key=repr) == sorted([None, *labels], key=repr)
