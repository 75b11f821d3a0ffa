"""From a file on S3 to a published table on S3: the whole data side on a real server (SeaweedFS)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_xops.data.ingest import ingest
from airflow_provider_xops.data.publish import publish
from airflow_provider_xops.data.transform import transform
from airflow_provider_xops.errors import SourceError
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.quality.validate import validate
from airflow_provider_xops.records import Actor, Outcome
from tests import servers


@pytest.fixture
def s3_lake(seaweedfs: servers.S3Server, actor: Actor, as_of: datetime) -> Lake:
    settings = seaweedfs.lake_settings("data-side")
    init_lake(settings, actor=actor, as_of=as_of)
    return open_lake(settings)


@pytest.fixture
def drop(s3_lake: Lake) -> Callable[[str, bytes], str]:
    """Puts a source file beside the lake and gives its URI."""

    def drop(name: str, content: bytes) -> str:
        s3_lake.storage.put_if_absent(f"landing/{name}", content)
        return f"{s3_lake.uri}/landing/{name}"

    return drop


@pytest.fixture
def open_file(s3_lake: Lake) -> Callable[[str], BinaryIO]:
    def open_file(uri: str) -> BinaryIO:
        content = s3_lake.storage.get(uri.removeprefix(f"{s3_lake.uri}/"))
        if content is None:
            raise FileNotFoundError(uri)
        return io.BytesIO(content)

    return open_file


def test_a_file_on_s3_becomes_a_published_table_and_a_derived_one(
    s3_lake: Lake,
    drop: Callable[[str, bytes], str],
    open_file: Callable[[str], BinaryIO],
    make_actor: Callable[..., Actor],
    as_of: datetime,
    tmp_path: Path,
) -> None:
    # given
    buffer = io.BytesIO()
    pq.write_table(pa.table({"flight": [3], "carrier": ["UA"]}), buffer)
    sources = {
        "2013-01-01": drop("a.csv", b"flight,carrier\n1,AA\n2,UA\n"),
        "2013-01-02": drop("b.parquet", buffer.getvalue()),
    }
    suite = tmp_path / "suite.json"
    suite.write_text(
        json.dumps([{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "flight"}}])
    )
    # when
    raw = ingest(s3_lake, "flights", sources, open_file=open_file, actor=make_actor(), as_of=as_of)
    report = validate(s3_lake, raw.record.ref, suite=str(suite), actor=make_actor(), as_of=as_of)
    published = publish(s3_lake, report, actor=make_actor(), as_of=as_of)
    derived = transform(
        s3_lake,
        {"f": published.record.ref},
        table="daily",
        sql="SELECT carrier, count(*) AS n FROM f GROUP BY carrier",
        actor=make_actor(),
        as_of=as_of,
    )
    # then
    assert report.outcome is Outcome.PASSED
    assert published.record.partition_digests == raw.record.partition_digests
    assert scan(s3_lake, derived.record.ref).read_all().to_pylist() == [
        {"carrier": "AA", "n": 1},
        {"carrier": "UA", "n": 2},
    ]
    again = ingest(s3_lake, "flights", sources, open_file=open_file, actor=make_actor(), as_of=as_of)
    assert again.reused


def test_a_file_that_is_not_on_s3_leaves_nothing_there(
    s3_lake: Lake,
    open_file: Callable[[str], BinaryIO],
    make_actor: Callable[..., Actor],
    as_of: datetime,
) -> None:
    before = set(s3_lake.storage.list(""))
    with pytest.raises(SourceError) as caught:
        ingest(
            s3_lake,
            "late",
            {"all": f"{s3_lake.uri}/landing/none.csv"},
            open_file=open_file,
            actor=make_actor(),
            as_of=as_of,
        )
    assert caught.value.code == "source.missing"
    assert set(s3_lake.storage.list("")) == before
