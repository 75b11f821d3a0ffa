"""The promotion ledger on an S3 store: of writers at the same moment one wins, and none is lost."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.records import PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger import Draft, LedgerState
from tests.unit.registry.builders import AS_OF, an_actor

pytestmark = pytest.mark.server

WRITERS, ENTRIES = 6, 3


def test_writers_on_s3_share_one_gapless_chain(seaweedfs: Any) -> None:
    settings = seaweedfs.lake_settings(f"ledger-{uuid.uuid4().hex}")
    init_lake(settings, actor=an_actor(), as_of=AS_OF)

    def write(writer: int) -> list[int]:
        lake = open_lake(settings)

        def decide(now: LedgerState) -> Draft:
            # Only who saw the ledger empty promotes, as only who saw the present champion does.
            outcome = PromotionOutcome.HELD if now.entries else PromotionOutcome.PROMOTED
            return Draft(outcome=outcome, reason="race", to_version=writer, to_created_at_ms=writer)

        actor = an_actor(f"writer {writer}")
        return [
            ledger.append(lake, "late flights", "champion", decide, actor=actor, as_of=AS_OF)[0].sequence
            for _ in range(ENTRIES)
        ]

    with ThreadPoolExecutor(WRITERS) as pool:
        written = [number for numbers in pool.map(write, range(WRITERS)) for number in numbers]

    lake = open_lake(settings)
    assert sorted(written) == list(range(1, WRITERS * ENTRIES + 1))
    assert [entry.sequence for entry in ledger.entries(lake)] == sorted(written)
    assert len(ledger.state(lake, "late flights", "champion").championships) == 1
    assert ledger.verify_chain(lake, "late flights") == []
    assert ledger.models(lake) == ["late flights"]
