"""A table gets a column: old rows, old digests and old versions stay what they were, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_xops.data.transform import transform
from airflow_provider_xops.errors import ArgumentError, ConflictError, DataError, LakeError
from airflow_provider_xops.lake import commit as commit_module
from airflow_provider_xops.lake.commit import Segment
from airflow_provider_xops.lake.history import stored_record, version_record
from airflow_provider_xops.lake.lake import Lake, init_lake, migrate_lake, open_lake
from airflow_provider_xops.lake.read import content_digest, partition_digests, scan, schema_of, verify_version
from airflow_provider_xops.lake.tables import head, resolve_ref
from airflow_provider_xops.quality.frames import LakeFrame
from airflow_provider_xops.records import WriteMode
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.helpers import AS_OF, put, rows_of, segment, untouchable, user
from tests.unit.lake.processes import run_all

EVOLVE = {"added": "evolve"}
ANY = {"added": "evolve", "removed": "fill_null", "retyped": "widen"}
DAY1, DAY2, DAY3 = "2013-01-01", "2013-01-02", "2013-01-03"


def verified(lake: Lake, table: str = "t") -> None:
    """Every version that is there reads as it was written."""
    for version in range(head(lake, table).version + 1):
        assert verify_version(lake, resolve_ref(lake, table, version)) == [], version


class TestAdded:
    @pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
    def test_a_new_column_is_missing_before_and_digests_stay(self, lake: Lake, mode: WriteMode) -> None:
        keys = ["k"] if mode is WriteMode.MERGE else []
        put(lake, "t", segment(DAY1, "1", {"k": [1, 2]}, "a"), mode=mode, keys=keys)
        before = head(lake, "t")
        rows = {"k": [3], "w": ["x"]}
        result = put(lake, "t", segment(DAY2, "2", rows, "b"), mode=mode, keys=keys, evolve=EVOLVE)

        assert rows_of(lake, "t") == {DAY1: [(1, None), (2, None)], DAY2: [(3, "x")]}
        assert result.record.ref == head(lake, "t")
        # then: what was there has the digest it had, and the version before is as it was
        assert partition_digests(lake, result.record.ref)[DAY1] == partition_digests(lake, before)[DAY1]
        assert content_digest(lake, result.record.ref, [DAY1]) == content_digest(lake, before, [DAY1])
        assert scan(lake, before).read_all().to_pydict() == {"k": [1, 2]}
        assert schema_of(lake, before).names == ["k"]
        verified(lake)

    def test_the_same_input_again_is_found(self, lake: Lake) -> None:
        put(lake, "t", segment(DAY1, "1", {"k": [1]}))
        first = put(lake, "t", segment(DAY2, "2", {"k": [2], "w": [1]}), evolve=EVOLVE)
        again = put(lake, "t", untouchable(DAY2, "2"), evolve=EVOLVE, actor=user(9))
        assert again.reused
        assert again.record == first.record
        assert put(lake, "t", untouchable(DAY1, "1"), actor=user(9)).reused

    def test_a_partition_from_before_can_be_written_again(self, lake: Lake) -> None:
        put(lake, "t", segment(DAY1, "1", {"k": [1]}))
        put(lake, "t", segment(DAY2, "2", {"k": [2], "w": [1]}), evolve=EVOLVE)
        put(lake, "t", segment(DAY1, "3", {"k": [1], "w": [7]}), actor=user(2))
        assert rows_of(lake, "t") == {DAY1: [(1, 7)], DAY2: [(2, 1)]}
        verified(lake)

    def test_a_merge_takes_rows_of_batches_from_before_and_leaves_them_what_they_were(
        self, lake: Lake
    ) -> None:
        options: dict[str, Any] = {"mode": WriteMode.MERGE, "keys": ["k"]}
        put(lake, "t", segment("all", "1", {"k": [1, 2, 3]}, "a"), **options)
        put(lake, "t", segment("all", "2", {"k": [2], "w": [20]}, "b"), evolve=EVOLVE, **options)
        put(lake, "t", segment("all", "3", {"k": [3], "w": [30]}, "c"), **options)
        assert sorted(rows_of(lake, "t")["all"]) == [(1, None), (2, 20), (3, 30)]
        verified(lake)

    def test_columns_come_one_after_the_other_and_several_at_once(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        put(lake, "t", segment("2", "2", {"k": [2], "a": [1]}), evolve=EVOLVE)
        put(lake, "t", segment("3", "3", {"c": ["c"], "k": [3], "b": [1.5], "a": [2]}), evolve=EVOLVE)
        assert rows_of(lake, "t") == {
            "1": [(1, None, None, None)],
            "2": [(2, 1, None, None)],
            "3": [(3, 2, "c", 1.5)],
        }
        verified(lake)

    def test_segments_of_one_commit_bring_their_columns_together(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        policy = {**EVOLVE, "removed": "fill_null"}
        segments = [
            segment("2", "2", {"k": [2]}), segment("3", "3", {"k": [3], "a": [1]}),
            segment("4", "4", {"k": [4], "b": [1]}),
        ]  # fmt: skip
        put(lake, "t", *segments, evolve=policy)
        expected = {"1": [(1, None, None)], "2": [(2, None, None)], "3": [(3, 1, None)], "4": [(4, None, 1)]}
        assert rows_of(lake, "t") == expected
        put(lake, "new", *segments, evolve=policy)
        assert rows_of(lake, "new") == {name: rows for name, rows in expected.items() if name != "1"}
        for table in ("t", "new"):
            verified(lake, table)
        # then: they differ from each other, which the policy has to allow, in whatever order they come
        for pair in (segments[:2], segments[1::-1]):
            with pytest.raises(DataError):
                put(lake, "other", *pair, evolve=EVOLVE)

    def test_a_column_can_be_left_out(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        rows = pa.table({"k": [2], "w": pa.nulls(1)})
        put(lake, "t", segment("2", "2", rows), evolve={"added": "ignore"})
        assert rows_of(lake, "t") == {"1": [(1,)], "2": [(2,)]}

    @pytest.mark.parametrize("name", ["K", "_xops_partition"])
    def test_a_column_that_cannot_be_is_refused(self, lake: Lake, name: str) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        with pytest.raises(DataError):
            put(lake, "t", segment("2", "2", {"k": [1], name: [1]}), evolve=EVOLVE)
        with pytest.raises(DataError) as caught:
            put(lake, "t", segment("2", "2", pa.table({"k": [1], "n": pa.nulls(1)})), evolve=EVOLVE)
        assert caught.value.code == "data.null_type"
        assert head(lake, "t").version == 0


class TestOtherChanges:
    def test_a_removed_column_is_missing_but_a_key_never_is(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1], "v": [1]}), keys=["k"])
        put(lake, "t", segment("2", "2", {"k": [2]}), evolve={"removed": "fill_null"})
        assert rows_of(lake, "t") == {"1": [(1, 1)], "2": [(2, None)]}
        with pytest.raises(DataError) as caught:
            put(lake, "t", segment("3", "3", {"v": [2]}), evolve=ANY)
        assert caught.value.context["missing"] == ["k"]
        verified(lake)

    @pytest.mark.parametrize(
        ("narrow", "wide", "values"),
        [
            (pa.int32(), pa.int64(), [1]), (pa.float32(), pa.float64(), [0.5]),
            (pa.int16(), pa.float32(), [3]),
            (pa.int32(), pa.float64(), [3]), (pa.decimal128(4, 1), pa.decimal128(6, 2), [1]),
            (pa.int8(), pa.decimal128(5, 2), [1]),
        ],
    )  # fmt: skip
    def test_narrower_values_fit_and_a_table_is_never_widened(
        self, lake: Lake, narrow: Any, wide: Any, values: list[Any]
    ) -> None:
        slim, broad = pa.table({"k": pa.array(values, narrow)}), pa.table({"k": pa.array(values, wide)})
        put(lake, "wide", segment("1", "1", broad))
        put(lake, "wide", segment("2", "2", slim), evolve={"retyped": "widen"})
        assert rows_of(lake, "wide")["2"] == rows_of(lake, "wide")["1"]
        put(lake, "slim", segment("1", "1", slim))
        with pytest.raises(DataError) as caught:
            put(lake, "slim", segment("2", "2", broad), evolve=ANY)
        assert len(caught.value.context["changed"]) == 1
        with pytest.raises(DataError):
            put(lake, "wide", segment("3", "3", slim))

    def test_without_a_policy_every_difference_is_refused_and_named(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1], "v": [1]}))
        with pytest.raises(DataError) as caught:
            put(lake, "t", segment("2", "2", {"k": ["x"], "w": [1]}))
        assert caught.value.code == "data.schema_mismatch"
        assert caught.value.context == {
            "missing": ["v"], "extra": ["w"], "changed": ["k (int64 expected, string found)"],
        }  # fmt: skip
        assert "policy" in caught.value.todo
        with pytest.raises(DataError) as caught:
            put(lake, "t", segment("2", "2", {"k": ["x"], "w": [1]}), evolve=EVOLVE)
        assert caught.value.context["extra"] == []

    @pytest.mark.parametrize("policy", [{"added": "allow"}, {"renamed": "fail"}, {"removed": "ignore"}])
    def test_a_policy_that_is_none_is_refused(self, lake: Lake, policy: dict[str, str]) -> None:
        with pytest.raises(ArgumentError) as caught:
            put(lake, "t", segment("1", "1", {"k": [1]}), evolve=policy)
        assert caught.value.code == "argument.schema_policy"


class TestReaders:
    @pytest.mark.parametrize("folder", ["plain", "with[brackets]"], ids=["DuckDB's own", "through Arrow"])
    def test_sql_sees_old_and_new_files_alike(self, tmp_path: Any, folder: str) -> None:
        place = LakeSettings(str(tmp_path / folder))
        init_lake(place, actor=user(), as_of=AS_OF)
        lake = open_lake(place)
        put(lake, "t", segment("1", "1", {"k": [1]}), segment("3", "1", {"k": [3]}))
        put(lake, "t", segment("2", "2", {"k": [2], "w": ["x"], 'd"': [datetime(2013, 1, 1, tzinfo=UTC)]}),
            evolve=EVOLVE)  # fmt: skip
        ref = head(lake, "t")

        def read(sql: str, **options: Any) -> list[tuple[Any, ...]]:
            table = f"r{len(sql)}{len(options)}"
            transform(lake, {"t": ref}, table=table, sql=sql, actor=user(), as_of=AS_OF, **options)
            return [row for rows in rows_of(lake, table).values() for row in rows]

        moment = datetime(2013, 1, 1, tzinfo=UTC)
        assert read("SELECT * FROM t") == [(1, None, None), (2, "x", moment), (3, None, None)]
        assert read("SELECT k FROM t WHERE w IS NULL") == [(1,), (3,)]
        assert read("SELECT * FROM t", partitions=["1"]) == [(1, None, None)]
        assert read("SELECT max(w) AS w, $partition AS p FROM t", partitions=["1", "2"]) == [
            (None, "1"), ("x", "2")
        ]  # fmt: skip

    def test_validation_sees_old_and_new_files_alike(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        put(lake, "t", segment("2", "2", {"k": [2], "w": ["x"]}), evolve=EVOLVE)
        for names, expected in ((None, [(1, None), (2, "x")]), (["1"], [(1, None)])):
            with duckdb.connect(":memory:") as connection:
                frame = LakeFrame(lake, head(lake, "t"), names)
                assert frame.relation(connection).fetchall() == expected

    def test_the_version_between_has_a_record_and_no_rows_of_its_own(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        put(lake, "t", segment("2", "2", {"k": [2], "w": [1]}), evolve=EVOLVE)
        between = resolve_ref(lake, "t", 1)
        record = version_record(lake, between)
        assert (record.partitions, record.rows, record.total_rows) == ((), 0, 1)
        assert scan(lake, between).read_all().to_pydict() == {"k": [1], "w": [None]}

    def test_a_restored_version_goes_on_from_where_it_was(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        put(lake, "t", segment("2", "2", {"k": [2], "w": [1]}), evolve=EVOLVE)
        DeltaTable(lake.storage.table_uri("t")).restore(0)
        put(lake, "t", segment("3", "3", {"k": [3], "w": [1]}), evolve=EVOLVE)
        assert rows_of(lake, "t") == {"1": [(1, None)], "3": [(3, 1)]}
        assert verify_version(lake, head(lake, "t")) == []

    def test_a_checkpoint_keeps_what_readers_need(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        put(lake, "t", segment("2", "2", {"k": [2], "w": [1]}), evolve=EVOLVE)
        DeltaTable(lake.storage.table_uri("t")).create_checkpoint()
        put(lake, "t", segment("3", "3", {"k": [3], "w": [1]}))
        verified(lake)


class TestLayout:
    def test_a_lake_of_layout_1_is_written_as_before_and_evolves_when_it_was_migrated(
        self, lake: Lake, lake_settings: LakeSettings
    ) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        file = lake.storage.get("_xops/lake.json") or b""
        lake.storage.overwrite(
            "_xops/lake.json", file.replace(b'"layout_version": 2', b'"layout_version": 1')
        )
        older = open_lake(lake_settings)
        assert older.info.layout_version == 1
        put(older, "t", segment("2", "2", {"k": [2]}))
        with pytest.raises(LakeError) as caught:
            put(older, "t", segment("3", "3", {"k": [3], "w": [1]}), evolve=EVOLVE)
        assert caught.value.code == "lake.layout_older"
        assert "xops lake migrate" in caught.value.todo
        migrate_lake(lake_settings, actor=user(), as_of=AS_OF)
        put(open_lake(lake_settings), "t", segment("3", "3", {"k": [3], "w": [1]}), evolve=EVOLVE)
        assert rows_of(lake, "t")["3"] == [(3, 1)]


class TestRaces:
    """Between any two steps of an evolving commit, somebody else commits something."""

    @pytest.mark.parametrize("step", ["prepare", "_add_columns", "_read_state", "_commit_files"])
    @pytest.mark.parametrize("other", ["data", "same column", "other column", "same work"])
    def test_whoever_comes_between_nothing_is_lost_or_doubled(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str, other: str
    ) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        real = getattr(commit_module, step)
        mine = segment("2", "2", {"k": [2], "w": [1]})
        rivals: dict[str, Callable[[], Any]] = {
            "data": lambda: put(lake, "t", segment("3", "3", {"k": [3]}), evolve=ANY),
            "same column": lambda: put(lake, "t", segment("3", "3", {"k": [3], "w": [3]}), evolve=ANY),
            "other column": lambda: put(lake, "t", segment("3", "3", {"k": [3], "x": [3]}), evolve=ANY),
            "same work": lambda: put(lake, "t", mine, evolve=ANY),
        }

        def after(*arguments: Any) -> Any:
            monkeypatch.setattr(commit_module, step, real)
            found = real(*arguments)
            rivals[other]()
            return found

        monkeypatch.setattr(commit_module, step, after)
        put(lake, "t", mine, evolve=ANY, actor=user(2))

        names = schema_of(lake, head(lake, "t")).names
        rows = {
            name: {
                tuple(sorted((n, v) for n, v in zip(names, row, strict=True) if v is not None))
                for row in rows
            }
            for name, rows in rows_of(lake, "t").items()
        }
        expected: dict[str, Any] = {"1": {(("k", 1),)}, "2": {(("k", 2), ("w", 1))}}
        if other != "same work":
            extra = {"data": (), "same column": (("w", 3),), "other column": (("x", 3),)}[other]
            expected["3"] = {(("k", 3), *extra)}
        assert rows == expected
        verified(lake)

    def test_a_busy_table_gets_its_column(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        # given: somebody commits while the rows are written, every time
        options: dict[str, Any] = {"mode": WriteMode.APPEND}
        put(lake, "t", segment("1", "0", {"k": [0]}, "b0"), **options)
        written = []

        def data() -> pa.RecordBatchReader:
            written.append(1)
            number = len(written)
            put(lake, "t", segment("1", str(number), {"k": [number]}, f"b{number}"), evolve=ANY, **options)
            return pa.table({"k": [9], "w": [9]}).to_reader()

        put(lake, "t", Segment("1", "mine", data, "mine"), evolve=ANY, actor=user(2), **options)
        assert len(written) == 2
        assert sorted(rows_of(lake, "t")["1"], key=str)[-1] == (9, 9)
        verified(lake)

    @pytest.mark.parametrize("error", [CommitFailedError("taken"), None], ids=["answer lost", "killed"])
    def test_columns_without_rows_are_found_by_the_next_attempt(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch, error: Exception | None
    ) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        real = commit_module._add_columns

        def interrupted(*arguments: Any) -> None:
            monkeypatch.setattr(commit_module, "_add_columns", real)
            real(*arguments)
            if error is None:
                raise KeyboardInterrupt

        monkeypatch.setattr(commit_module, "_add_columns", interrupted)
        mine = segment("2", "2", {"k": [2], "w": [1]})
        if error is None:
            with pytest.raises(KeyboardInterrupt):
                put(lake, "t", mine, evolve=EVOLVE)
            assert rows_of(lake, "t") == {"1": [(1, None)]}
            verified(lake)
        result = put(lake, "t", mine, evolve=EVOLVE, actor=user(2))
        assert result.record.version == 2
        assert rows_of(lake, "t") == {"1": [(1, None)], "2": [(2, 1)]}
        assert stored_record(lake, result.record.ref) == result.record
        verified(lake)

    def test_a_load_that_fails_leaves_the_table_as_it_was(self, lake: Lake) -> None:
        put(lake, "t", segment("1", "1", {"k": [1]}))
        rows = pa.table({"k": ["no number"], "w": [1]})
        schema = pa.schema([("k", pa.int64()), ("w", pa.int64())])
        with pytest.raises(DataError):
            put(lake, "t", segment("2", "2", rows), evolve=EVOLVE, schema=schema)
        assert head(lake, "t").version == 0

    def test_processes_that_evolve_one_table_at_once_all_get_in(self, lake: Lake, lake_settings: Any) -> None:
        put(lake, "t", segment("0", "0", {"k": [0]}))
        run_all(evolve_in_rounds, 3, lake_settings, 3)
        ref = head(lake, "t")
        assert sorted(schema_of(lake, ref).names) == ["c0", "c1", "c2", "k", "shared"]
        found = scan(lake, ref).read_all().to_pylist()
        assert len(found) == 1 + 3 * 3
        for row in found[1:]:
            number, turn = divmod(row["k"], 100)
            assert row["shared"] == turn
            assert [row[f"c{each}"] for each in range(3)] == [
                turn if each == number and turn else None for each in range(3)
            ]
        verified(lake)


def evolve_in_rounds(barrier: Any, number: int, place: LakeSettings, rounds: int) -> None:
    """First all bring the same column, then each its own."""
    lake = open_lake(place)
    for turn in range(rounds):
        barrier.wait(60)
        rows = {"k": [number * 100 + turn], "shared": [turn], **({f"c{number}": [turn]} if turn else {})}
        for _ in range(20):
            try:
                put(lake, "t", segment(f"{number}-{turn}", "x", rows), evolve=ANY, actor=user(turn + 1))
                break
            except ConflictError:
                continue


@given(
    commits=st.lists(
        st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(["b", "c"]), st.sets(st.sampled_from("xyz"))),
        min_size=1,
        max_size=6,
    ),
    mode=st.sampled_from(list(WriteMode)),
)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_any_sequence_of_columns_reads_as_the_rows_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, commits: list[Any], mode: WriteMode
) -> None:
    place = LakeSettings(str(tmp_path_factory.mktemp("evolving")))
    init_lake(place, actor=user(), as_of=AS_OF)
    lake = open_lake(place)
    keys = ["k"] if mode is WriteMode.MERGE else []
    model: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number, (partition, batch, extra) in enumerate(commits):
        rows = [{"k": key, **dict.fromkeys(extra, number)} for key in (number % 3, 5)]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        put(lake, "t", segment(partition, str(number), columns, batch), mode=mode, keys=keys, evolve=ANY,
            actor=user(number))  # fmt: skip
        if mode is WriteMode.REPLACE:
            model = {key: value for key, value in model.items() if key[0] != partition}
        if mode is WriteMode.MERGE:
            taken = {row["k"] for row in rows}
            for key, value in model.items():
                if key[0] == partition:
                    model[key] = [row for row in value if row["k"] not in taken]
        model[partition, batch] = rows
    found = scan(lake, head(lake, "t"), with_partition=True).read_all().to_pylist()
    seen = sorted(
        (row.pop("_xops_partition"), sorted((n, v) for n, v in row.items() if v is not None)) for row in found
    )
    assert seen == sorted((key[0], sorted(row.items())) for key, rows in model.items() for row in rows)
    verified(lake)
