"""A selection names its rows so that they can be chosen again, and notices when they are others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import DataError, TrainingError, XOpsError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.digest import table_digest
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ActorKind, DatasetRef, ModelVersion, Producer, Selection
from airflow_provider_xops.training.selections import choose, materialize, overlap, whole
from airflow_provider_xops.training.splits import GroupSplit, RandomSplit, Split, TimeSplit

DAYS = [f"2013-01-0{day}" for day in range(1, 8)]
ROWS_A_DAY = 12


def day(name: str, *, shift: int = 0) -> pa.Table:
    number = DAYS.index(name)
    ids = [number * 100 + row + shift for row in range(ROWS_A_DAY)]
    return pa.table(
        {
            "id": ids,
            "x": [float(value % 7) for value in ids],
            "plane": [f"N{value % 5}" for value in ids],
            "late": pa.array([None if value % 11 == 0 else value % 2 for value in ids], pa.int64()),
        }
    )


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Callable[..., DatasetRef]:
    def load(days: list[str] = DAYS, *, shift: int = 0, table: str = "flights") -> DatasetRef:
        segments = [Segment(name, f"{name}/{shift}", day(name, shift=shift).to_reader) for name in days]
        return commit(lake, table, segments, actor=make_actor(), as_of=as_of).record.ref

    return load


def picked(lake: Lake, ref: DatasetRef, split: Split, **more: Any) -> Any:
    return choose(
        lake,
        dataset=ref,
        partitions=more.pop("partitions", None),
        columns=["id", "x", "late"],
        target="late",
        split=split,
        **more,
    )


SPLITS = [
    TimeSplit(holdout_partitions=2, gap=1), TimeSplit(column="id", fraction=0.3, gap=50),
    RandomSplit(fraction=0.25, seed=4, stratify="late"), GroupSplit(column="plane", fraction=0.3, seed=2),
]  # fmt: skip


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.kind)
def test_rows_are_chosen_again_from_the_selection_alone(
    lake: Lake, load: Callable[..., DatasetRef], split: Split
) -> None:
    # given: a selection, and later versions of the same table
    chosen = picked(lake, load(), split, sample=30, seed=5)
    load(DAYS[:3], shift=7)
    # when / then: the rows come back from the record's JSON, in order
    for selection, table in ((chosen.training, chosen.training_rows), (chosen.holdout, chosen.holdout_rows)):
        again = read_back(selection)
        rows = materialize(lake, again, columns=["late", "id"])
        assert rows.column_names == ["late", "id"]
        assert rows.column("id").to_pylist() == table.column("id").to_pylist()
    assert not set(chosen.training_rows["id"].to_pylist()) & set(chosen.holdout_rows["id"].to_pylist())
    assert overlap(lake, chosen.training, chosen.holdout) == 0
    assert chosen.training.rows <= 30


def read_back(selection: Selection) -> Selection:
    model = ModelVersion(
        recorded_at=datetime.fromisoformat("2026-01-01T00:00:00+00:00"),
        produced_by=Producer(kind=ActorKind.USER, id="t"),
        name="m",
        version=1,
        created_at_ms=1,
        run_id=None,
        source_uri="",
        training=selection,
        holdout=None,
        features=(),
        target="late",
        task="",
        estimator="",
        code_version="",
        params_digest="",
        artifact_digest="",
        metrics={},
    )
    again = ModelVersion.from_json(model.to_json()).training
    assert again is not None
    return again


def test_a_selection_says_exactly_which_rows_it_means(lake: Lake, load: Callable[..., DatasetRef]) -> None:
    chosen = picked(lake, load(), TimeSplit(holdout_partitions=2))
    labeled = [row for name in DAYS[5:] for row in day(name).to_pylist() if row["late"] is not None]
    expected = pa.Table.from_pylist(labeled, day(DAYS[0]).schema).select(["id", "x", "late"])
    assert chosen.holdout.partitions == tuple(DAYS[5:])
    assert chosen.holdout.rows == len(labeled) < 2 * ROWS_A_DAY
    assert chosen.holdout.digest == table_digest(expected.to_reader())
    assert chosen.holdout.row_ids_digest != chosen.training.row_ids_digest


def test_a_time_split_by_column_tells_its_interval(
    lake: Lake, load: Callable[..., DatasetRef], actor: Actor, as_of: datetime
) -> None:
    times = [f"2013-01-0{number}T12:00:00+00:00" for number in range(1, 9)]
    table = pa.table(
        {
            "when": pa.array([datetime.fromisoformat(time) for time in times], pa.timestamp("us", "UTC")),
            "y": [0, 1] * 4,
        }
    )
    ref = commit(lake, "t", [Segment("all", "f", table.to_reader)], actor=actor, as_of=as_of).record.ref
    chosen = choose(
        lake, dataset=ref, partitions=None, columns=["y"], target="y",
        split=TimeSplit(column="when", cutoff="2013-01-06", gap=1),
    )  # fmt: skip
    assert chosen.training.description == "time[when]:[,2013-01-05T00:00:00+00:00)"
    assert chosen.holdout.description == "time[when]:[2013-01-06T00:00:00+00:00,)"


@pytest.mark.parametrize(
    "asked",
    [DAYS[1:6], [DAYS[0], DAYS[2], DAYS[6]], [DAYS[3], DAYS[1]], DAYS],
    ids=["range", "list", "two", "all"],
)
def test_only_the_partitions_asked_for_are_read(
    lake: Lake, load: Callable[..., DatasetRef], asked: list[str]
) -> None:
    ref = load()
    chosen = picked(lake, ref, RandomSplit(fraction=0.5), partitions=asked)
    ids = chosen.training_rows["id"].to_pylist() + chosen.holdout_rows["id"].to_pylist()
    assert {DAYS[value // 100] for value in ids} == set(asked)
    again = materialize(lake, chosen.training, columns=["id"])
    assert again.column("id").to_pylist() == chosen.training_rows["id"].to_pylist()


def test_changed_rows_are_noticed(lake: Lake, load: Callable[..., DatasetRef]) -> None:
    chosen = picked(lake, load(), TimeSplit(holdout_partitions=2))
    other = load(shift=2)
    for forged in (
        dataclasses.replace(chosen.holdout, dataset=other),
        dataclasses.replace(chosen.holdout, digest="0" * 64),
        dataclasses.replace(chosen.holdout, rows=3),
        dataclasses.replace(chosen.holdout, rule=""),
    ):
        with pytest.raises(DataError) as caught:
            materialize(lake, forged, columns=["id"])
        assert caught.value.code == "data.selection_changed"


def test_whole_partitions_are_a_selection_too(lake: Lake, load: Callable[..., DatasetRef]) -> None:
    ref = load()
    selection = whole(lake, dataset=ref, partitions=DAYS[:2], columns=["id", "late"], target="late")
    rows = materialize(lake, selection, columns=["id", "x"])
    assert rows.num_rows == selection.rows
    assert selection.partitions == tuple(DAYS[:2])
    everything = whole(lake, dataset=ref, partitions=None, columns=["id"])
    assert everything.rows == len(DAYS) * ROWS_A_DAY == read.count_rows(lake, ref)


def test_overlap_counts_shared_rows(lake: Lake, load: Callable[..., DatasetRef]) -> None:
    first = load()
    early = whole(lake, dataset=first, partitions=DAYS[:4], columns=["id"])
    late = whole(lake, dataset=first, partitions=DAYS[3:], columns=["id"])
    # a row of the same place and content is the same row in every version of the table
    second = load([DAYS[0]], shift=3)
    newer = whole(lake, dataset=second, partitions=DAYS[3:5], columns=["id"])
    other_table = whole(lake, dataset=load(table="others"), partitions=DAYS[:4], columns=["id"])
    assert overlap(lake, early, late) == ROWS_A_DAY
    assert overlap(lake, early, newer) == ROWS_A_DAY
    assert overlap(lake, early, other_table) == 0
    assert overlap(lake, early, whole(lake, dataset=first, partitions=DAYS[5:], columns=["id"])) == 0


def test_overlap_with_a_corrected_partition_counts_it_whole(
    lake: Lake, load: Callable[..., DatasetRef]
) -> None:
    old = whole(lake, dataset=load(), partitions=[DAYS[0]], columns=["id"])
    new = whole(lake, dataset=load([DAYS[0]], shift=1), partitions=[DAYS[0]], columns=["id"])
    assert overlap(lake, old, new) == ROWS_A_DAY


def test_two_random_splits_of_the_same_partitions_overlap_by_row(
    lake: Lake, load: Callable[..., DatasetRef]
) -> None:
    ref = load()
    one, other = (picked(lake, ref, RandomSplit(fraction=0.5, seed=seed)) for seed in (1, 2))
    shared = set(one.holdout_rows["id"].to_pylist()) & set(other.training_rows["id"].to_pylist())
    assert overlap(lake, one.holdout, other.training) == len(shared) > 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"split": TimeSplit(holdout_partitions=7)}, "training.empty"),
        ({"split": TimeSplit(holdout_partitions=6, gap=1)}, "training.empty"),
        ({"split": TimeSplit(column="id", cutoff=10_000)}, "training.empty"),
        ({"split": GroupSplit(column="missing")}, "data.columns_missing"),
        ({"target": "missing"}, "training.no_target"),
        ({"columns": ["missing"]}, "data.columns_missing"),
        ({"partitions": ["2014-01-01"]}, "training.partitions"),
        ({"partitions": []}, "training.empty"),
        *(({"sample": sample}, "argument.sample") for sample in (0, 1, 1.0, float("inf"), float("nan"))),
    ],
)
def test_an_unusable_choice_is_refused(
    lake: Lake, load: Callable[..., DatasetRef], change: dict[str, Any], code: str
) -> None:
    arguments: dict[str, Any] = {
        "partitions": None, "columns": ["x"], "target": "late", "split": RandomSplit(), **change,
    }  # fmt: skip
    with pytest.raises(XOpsError) as caught:
        choose(lake, dataset=load(), **arguments)
    assert caught.value.code == code
    assert caught.value.todo
    assert not caught.value.retryable


def test_rows_that_all_lack_the_target_are_no_target(lake: Lake, actor: Actor, as_of: datetime) -> None:
    table = pa.table({"x": [1, 2], "late": pa.array([None, None], pa.int64())})
    ref = commit(lake, "t", [Segment("all", "f", table.to_reader)], actor=actor, as_of=as_of).record.ref
    with pytest.raises(TrainingError) as caught:
        choose(lake, dataset=ref, partitions=None, columns=["x"], target="late", split=RandomSplit())
    assert caught.value.code == "training.no_target"


def test_a_sample_is_part_of_the_whole_and_leaves_the_holdout(
    lake: Lake, load: Callable[..., DatasetRef]
) -> None:
    ref = load()
    full, few, share = (
        picked(lake, ref, RandomSplit(seed=1), sample=sample, seed=3) for sample in (None, 10, 0.5)
    )
    assert set(few.training_rows["id"].to_pylist()) < set(full.training_rows["id"].to_pylist())
    assert few.training.rows == 10
    assert share.training.rows == round(full.training.rows * 0.5)
    assert few.holdout.digest == full.holdout.digest
