"""Rows set aside, mended and published on S3: the quarantine on a real server (SeaweedFS)."""

from __future__ import annotations

from datetime import datetime

from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.lake.lineage import render, trace
from airflow_provider_xops.lake.read import verify_version
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.quality.quarantined import list_quarantine
from airflow_provider_xops.records import Actor
from tests import servers
from tests.unit.quality.quarantine_cases import DAY, A, Flow


def test_a_split_a_release_and_a_publication_on_s3(
    seaweedfs: servers.S3Server, actor: Actor, as_of: datetime
) -> None:
    settings = seaweedfs.lake_settings("quarantine")
    init_lake(settings, actor=actor, as_of=as_of)
    flow = Flow(open_lake(settings))
    # when: a bad file, and a row of it mended
    first = flow.run(A)
    assert flow.published() == [(1, "AA"), (3, "UA"), (5, "AA")]
    assert flow.export().column("_xops_row").to_pylist() == [1, 3]
    flow.publish(flow.release({1: (2, "UA")}).report)
    # then: also of a run that is cleared
    for _ in range(2):
        assert flow.published() == [(1, "AA"), (2, "UA"), (3, "UA"), (5, "AA")]
        (place,) = list_quarantine(flow.lake, "flights", partition=DAY)
        assert (place.rows, place.outdated) == (1, False)
        flow.run(A)
    for table in ("flights", "flights__accepted", "flights__quarantine", "flights__released"):
        assert verify_version(flow.lake, head(flow.lake, table)) == []
    assert first.record is not None
    assert (first.record.report_uri or "").startswith("s3://")
    assert "MISSING" not in render(trace(flow.lake, "flights@1"))
