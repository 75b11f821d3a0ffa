"""Traffic splits on S3: of writers in different processes that saw the same split, one wins."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.serving.plan import plan_of
from airflow_provider_xops.serving.traffic import get_split, last_split
from tests import servers
from tests.unit.registry.builders import a_model, an_actor
from tests.unit.serving.online.fleet_cases import ALIAS, MODEL, PROMOTED
from tests.unit.serving.test_traffic import decide

pytestmark = pytest.mark.server

WRITERS, ROUNDS = 4, 2
WRITER = """
import json, sys
from airflow_provider_xops.errors import ConflictError
from airflow_provider_xops.lake.lake import open_lake
from airflow_provider_xops.serving.traffic import split_traffic
from airflow_provider_xops.settings import LakeSettings
from tests.unit.registry.builders import AS_OF, an_actor
from tests.unit.serving.online.fleet_cases import ALIAS, MODEL, canary, primary

number, settings = int(sys.argv[1]), json.loads(sys.stdin.readline())
lake = open_lake(LakeSettings(**settings))
print("ready", flush=True)
for line in sys.stdin:
    seen = int(line)
    share = (10 * seen + number) / 100
    try:
        made = split_traffic(
            lake, model=MODEL, alias=ALIAS, variants=[primary(1, 1 - share), canary(2, share)],
            reason="a race", expected=seen, actor=an_actor(f"writer {number}/{seen}"), as_of=AS_OF,
        )
        print(made.sequence, flush=True)
    except ConflictError as error:
        print(error.code, flush=True)
"""


def test_of_writers_in_many_processes_one_wins_each_round(
    seaweedfs: servers.S3Server, as_of: datetime
) -> None:
    settings = seaweedfs.lake_settings(f"traffic-{uuid.uuid4().hex[:8]}")
    init_lake(settings, actor=an_actor("init"), as_of=as_of)
    lake = open_lake(settings)
    for version in (1, 2):
        lake.evidence.put(a_model(version, name=MODEL))
    decide(lake, PROMOTED, 1, as_of)
    order = json.dumps(
        {"uri": settings.uri, "storage_options": settings.storage_options, "credentials": None}
    )
    writers: list[Any] = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(1, WRITERS + 1)
    ]
    try:
        for writer in writers:
            writer.stdin.write(f"{order}\n")
            writer.stdin.flush()
        assert [writer.stdout.readline().strip() for writer in writers] == ["ready"] * WRITERS
        known = None
        for seen in range(ROUNDS):
            for writer in writers:
                writer.stdin.write(f"{seen}\n")
                writer.stdin.flush()
            answers = [writer.stdout.readline().strip() for writer in writers]

            assert sorted(answers) == sorted([str(seen + 1), *["conflict.traffic"] * (WRITERS - 1)])
            split = last_split(lake, MODEL, ALIAS, known=known)
            assert split == last_split(open_lake(settings), MODEL, ALIAS)
            assert split is not None
            winner = answers.index(str(seen + 1)) + 1
            assert split.idempotency_key == f"writer {winner}/{seen}"
            assert plan_of(ledger.state(lake, MODEL, ALIAS), split).split == split
            known = split
        assert get_split(lake, MODEL, ALIAS, ROUNDS + 1) is None
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdin.close()
            writer.stdout.close()
