"""Promotion under fire: promoters are killed at random instants, and the ledger keeps every promise.

``TORTURE_SEED=7 pytest -m soak -s tests/integration/test_promotion_torture.py`` plays the long version with a
seed of your own; the order in which processes run is the machine's all the same.
"""

from __future__ import annotations

import os
import random
import uuid
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from tests.integration.promotion_torture import Torture
from tests.unit.registry.builders import AS_OF, an_actor

pytestmark = pytest.mark.server


@pytest.fixture(params=["local", "s3"])
def any_lake(request: pytest.FixtureRequest) -> Lake:
    """A lake in a folder, or on SeaweedFS."""
    if request.param == "local":
        lake: Lake = request.getfixturevalue("lake")
        return lake
    settings = request.getfixturevalue("seaweedfs").lake_settings(f"torture-{uuid.uuid4().hex}")
    init_lake(settings, actor=an_actor(), as_of=AS_OF)
    return open_lake(settings)


def play(lake: Lake, mlflow_server: Any, *, promoters: int, rounds: int, kills: int) -> Torture:
    seed = int(os.environ.get("TORTURE_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed}")
    torture = Torture(lake, mlflow_server, promoters=promoters, kills=kills, seed=seed)
    with torture.running():
        torture.play(rounds)
        torture.check()
    print(torture.figures)
    return torture


def test_no_decision_is_lost_or_doubled_when_promoters_are_killed(any_lake: Lake, mlflow_server: Any) -> None:
    # On S3 what differs is how an entry is committed: the smaller version meets it as well.
    promoters, kills = (3, 2) if any_lake.uri.startswith("s3:") else (5, 3)
    torture = play(any_lake, mlflow_server, promoters=promoters, rounds=2, kills=kills)

    assert torture.figures.kills > 0
    assert torture.figures.works == promoters * 2


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_rounds_of_sixteen_promoters_under_fire(any_lake: Lake, mlflow_server: Any) -> None:
    torture = play(any_lake, mlflow_server, promoters=16, rounds=50, kills=8)

    assert torture.figures.kills >= 300
    assert torture.figures.works == 16 * 50
