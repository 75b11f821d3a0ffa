"""The lake hook on a real S3 server: an AWS connection's credentials, sources read through Airflow."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_xops.errors import LakeError
from airflow_provider_xops.hooks.lake import LakeHook
from airflow_provider_xops.lake.lake import init_lake
from airflow_provider_xops.records import Actor
from tests.servers import S3Server


@pytest.fixture
def connections(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """An AWS connection to the server, and a lake connection that names it; gives the lake's URI."""
    uri = f"s3://lake/{uuid.uuid4().hex[:8]}"

    def make(*, secret: str | None = None) -> str:
        options = seaweedfs.storage_options()
        aws = {
            "conn_type": "aws",
            "login": options["AWS_ACCESS_KEY_ID"],
            "password": secret or options["AWS_SECRET_ACCESS_KEY"],
            "extra": {"endpoint_url": options["AWS_ENDPOINT_URL"], "region_name": "us-east-1"},
        }
        lake = {"conn_type": "xops_lake", "host": uri, "extra": {"aws_conn_id": "aws_lake", "timeout": 20}}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_LAKE", json.dumps(aws))
        monkeypatch.setenv("AIRFLOW_CONN_XOPS_LAKE_DEFAULT", json.dumps(lake))
        return uri

    return make


@pytest.fixture
def made(connections: Callable[..., str], actor: Actor, as_of: datetime) -> str:
    """A lake on the server; gives its id."""
    connections()
    return init_lake(LakeHook().get_settings(), actor=actor, as_of=as_of).lake_id


def test_lake_opens_with_the_credentials_of_an_aws_connection(made: str) -> None:
    assert LakeHook().get_lake().lake_id == made
    assert LakeHook().test_connection()[0] is True


def test_credentials_that_were_changed_are_used_at_the_next_open(
    made: str, connections: Callable[..., str]
) -> None:
    # given an open lake's settings, resolved while the key was right
    settings = LakeHook().get_settings()

    # when the key becomes wrong, and right again
    connections(secret="not-the-secret")
    from airflow_provider_xops.lake.lake import open_lake

    with pytest.raises(LakeError) as caught:
        open_lake(settings)
    assert caught.value.code == "lake.forbidden"
    ok, message = LakeHook().test_connection()
    assert not ok
    assert "[lake.forbidden]" in message
    assert "not-the-secret" not in message
    connections()

    # then the very same settings open it
    assert open_lake(settings).lake_id == made


def test_source_on_s3_is_ingested_into_a_lake_on_s3(
    made: str, connections: Callable[..., str], tmp_path: Path
) -> None:
    # given a file that is written to the bucket through Airflow's own object storage
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_xops.operators.data import IngestDatasetOperator

    source = f"{connections()}-landing/2013-01-01.csv"
    with ObjectStoragePath(source, conn_id="aws_lake").open("wb") as stream:
        stream.write(b"id,n\n1,5\n2,6\n")
    ti = SimpleNamespace(
        dag_id="d",
        run_id="r",
        task_id="i",
        map_index=-1,
        try_number=1,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
    )
    context: Any = {"ti": ti, "outlet_events": OutletEventAccessors()}

    operator = IngestDatasetOperator(
        task_id="i", table="t", source=source, partition="2013-01-01", source_conn_id="aws_lake"
    )
    returned = operator.execute(context)
    again = operator.execute(context)

    assert (returned["rows"], returned["lake_id"], again["reused"]) == (2, made, True)
    assert returned["sources"][0]["uri"] == source
