"""Files that bring other columns: named, judged by a policy, and carried through to the published table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.data.evolution import probable_renames
from airflow_provider_xops.data.ingest import ingest, recorded_schema
from airflow_provider_xops.data.publish import publish
from airflow_provider_xops.data.transform import transform
from airflow_provider_xops.errors import DataError, SourceError
from airflow_provider_xops.lake.commit import CommitResult
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import content_digest, partition_digests, schema_of, verify_version
from airflow_provider_xops.lake.tables import head, resolve_ref
from airflow_provider_xops.records import Actor, DatasetRef, Outcome, ValidationReport
from tests.unit.lake.helpers import put, rows_of, segment, user

EVOLVE = {"added": "evolve"}
Load = Callable[..., CommitResult]


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime, tmp_path: Path) -> Load:
    """Load CSV text, each partition one file, by a later attempt each time."""

    def load(policy: dict[str, str] | None = None, suffix: str = "csv", **texts: str) -> CommitResult:
        sources = {}
        for day, text in texts.items():
            path = tmp_path / f"{day}.{suffix}"
            path.write_text(text)
            sources[day] = str(path)
        return ingest(lake, "t", sources, on_schema_change=policy, actor=make_actor(), as_of=as_of)

    return load


def passed(lake: Lake, ref: DatasetRef, as_of: datetime, *partitions: str) -> ValidationReport:
    names = partitions or None
    digests = partition_digests(lake, ref)
    report = ValidationReport(
        recorded_at=as_of, produced_by=user().producer, dataset=ref, partitions=names,
        partition_digests=tuple(digests[name] for name in names or digests),
        content_digest=content_digest(lake, ref, names), suite="small", suite_digest="ab" * 32,
        outcome=Outcome.PASSED, severity=None, counts={"passed": 1}, rows=1, engine="test/1",
    )  # fmt: skip
    lake.evidence.put(report)
    return report


def test_without_a_policy_other_columns_are_refused_as_ever(load: Load) -> None:
    load(d1="a\n1\n")
    with pytest.raises(SourceError) as caught:
        load(d2="a,b\n1,2\n")
    assert caught.value.code == "source.columns"


def test_a_change_that_the_policy_does_not_allow_is_named(lake: Lake, load: Load) -> None:
    load(d1="a,dep,gone\n1,1.5,x\n")
    with pytest.raises(DataError) as caught:
        load({"added": "fail"}, d2="a,departure,new\n1,2.5,2013-01-01\n")
    assert caught.value.code == "data.schema_changed"
    assert caught.value.context == {
        "added": ["departure", "new"], "removed": ["dep", "gone"], "probably_renamed": [["dep", "departure"]],
    }  # fmt: skip
    assert "'dep' is probably 'departure' now" in caught.value.what
    assert head(lake, "t__raw").version == 0


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_new_column_is_added_and_later_loads_know_it(lake: Lake, load: Load, suffix: str) -> None:
    texts = {
        "csv": ("a\n1\n", "b,a\nx,2\n", "a,b\n3,y\n"),
        "jsonl": ('{"a": 1}\n', '{"b": "x", "a": 2}\n', '{"a": 3, "b": "y"}\n'),
    }[suffix]
    load(suffix=suffix, d1=texts[0])
    load(EVOLVE, suffix=suffix, d2=texts[1])
    load(suffix=suffix, d3=texts[2])
    assert rows_of(lake, "t__raw") == {"d1": [(1, None)], "d2": [(2, "x")], "d3": [(3, "y")]}
    assert recorded_schema(lake, "t__raw") == {"a": "int64", "b": "string"}
    assert verify_version(lake, head(lake, "t__raw")) == []


def test_the_same_files_are_found_before_and_after_the_change(load: Load) -> None:
    load(EVOLVE, d1="a\n1\n")
    load(EVOLVE, d2="a,b\n2,x\n")
    assert load(EVOLVE, d2="a,b\n2,x\n").reused
    # an old file has the columns it had, so it is the input that it was
    assert load({**EVOLVE, "removed": "fill_null"}, d1="a\n1\n").reused


def test_partitions_of_one_load_may_differ_and_columns_may_go(lake: Lake, load: Load) -> None:
    load(d1="a,b\n1,x\n")
    load({**EVOLVE, "removed": "fill_null"}, d2="a\n2\n", d3="a,b,c\n3,y,1.5\n")
    assert rows_of(lake, "t__raw") == {
        "d1": [(1, "x", None)], "d2": [(2, None, None)], "d3": [(3, "y", 1.5)],
    }  # fmt: skip


def test_a_new_column_can_be_left_out(lake: Lake, load: Load) -> None:
    load(d1="a\n1\n")
    load({"added": "ignore"}, d2="a,b\n2,x\n")
    assert rows_of(lake, "t__raw") == {"d1": [(1,)], "d2": [(2,)]}


def test_the_published_table_gets_the_column_with_the_raw_one(
    lake: Lake, load: Load, as_of: datetime, actor: Actor
) -> None:
    first = load(d1="a\n1\n", d0="a\n0\n").record.ref
    publish(lake, passed(lake, first, as_of, "d1"), actor=actor, as_of=as_of)
    before = head(lake, "t")
    second = load(EVOLVE, d2="a,b\n2,x\n").record.ref
    # when: the new partition, an old one that was not published yet, and one that was
    publish(lake, passed(lake, second, as_of), actor=actor, as_of=as_of)
    assert rows_of(lake, "t") == {"d0": [(0, None)], "d1": [(1, None)], "d2": [(2, "x")]}
    # then: what was published is as it was, byte for byte
    assert partition_digests(lake, before)["d1"] == partition_digests(lake, head(lake, "t"))["d1"]
    assert schema_of(lake, before).names == ["a"]
    for version in range(head(lake, "t").version + 1):
        assert verify_version(lake, resolve_ref(lake, "t", version)) == []


def test_an_older_raw_version_is_published_behind_the_change(
    lake: Lake, load: Load, as_of: datetime, actor: Actor
) -> None:
    first = load(d1="a\n1\n").record.ref
    second = load(EVOLVE, d2="a,b\n2,x\n").record.ref
    publish(lake, passed(lake, second, as_of, "d2"), actor=actor, as_of=as_of)
    publish(lake, passed(lake, first, as_of, "d1"), actor=actor, as_of=as_of)
    assert rows_of(lake, "t") == {"d1": [(1, None)], "d2": [(2, "x")]}


def test_columns_of_a_table_that_never_evolved_are_not_added_by_publishing(
    lake: Lake, load: Load, as_of: datetime, actor: Actor
) -> None:
    put(lake, "t", segment("d0", "0", {"other": [1]}), keys=())
    ref = load(d1="a\n1\n").record.ref
    with pytest.raises(DataError) as caught:
        publish(lake, passed(lake, ref, as_of), actor=actor, as_of=as_of)
    assert caught.value.code == "data.schema_mismatch"


def test_a_transformed_table_has_a_policy_of_its_own(lake: Lake, as_of: datetime, actor: Actor) -> None:
    ref = put(lake, "in", segment("p", "1", {"a": [1]}), segment("q", "1", {"a": [2]})).record.ref

    def make(sql: str, partition: str, policy: Any = None) -> CommitResult:
        return transform(
            lake, {"t": ref}, table="out", sql=sql, partitions=[partition], on_schema_change=policy,
            actor=actor, as_of=as_of,
        )  # fmt: skip

    make("SELECT a FROM t", "p")
    with pytest.raises(DataError):
        make("SELECT a, a * 2 AS b FROM t", "q")
    make("SELECT a, a * 2 AS b FROM t", "q", EVOLVE)
    assert rows_of(lake, "out") == {"p": [(1, None)], "q": [(2, 4)]}


def test_what_cannot_be_told_apart_is_not_called_renamed() -> None:
    assert probable_renames({"a": "int64", "b": "int64"}, {"c": "int64"}) == {}
    assert probable_renames({"a": "int64"}, {"c": "string"}) == {}
