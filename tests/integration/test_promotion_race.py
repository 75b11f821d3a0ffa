"""Sixteen processes promote at once, round after round: one is promoted, fifteen are held as superseded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake, open_lake
from airflow_provider_xops.records import PromotionDecision, record_from_json
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import get_model
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.settings import LakeSettings, MlflowSettings
from tests.integration.registry_steps import bare_version, fresh_name
from tests.processes import CONTEXT
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor

pytestmark = pytest.mark.server

PROMOTERS = 16


def promoter(pipe: Connection, start: Barrier, url: str, lake_uri: str) -> None:
    """A process that lives as long as the test, and promotes what it is told to, together with the others."""
    client = RegistryClient(MlflowSettings(url, timeout_s=60, max_retries=3))
    lake = open_lake(LakeSettings(lake_uri))
    client.preflight()
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        name, version, expected = order
        model = get_model(lake, name, version)
        champion = get_model(lake, name, expected) if expected else None
        evaluation = a_recorded_evaluation(lake, model, champion)
        actor = an_actor(f"promote {version}", fence=version)
        start.wait(120)
        try:
            result = promote(
                lake, client, model=model, expected=expected, evaluation=evaluation, actor=actor, as_of=AS_OF
            )
            pipe.send(result.decision.to_json())
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


@pytest.fixture
def promoters(mlflow_server: Any, lake: Lake) -> Iterator[list[Connection]]:
    start, pipes, processes = CONTEXT.Barrier(PROMOTERS), [], []
    for _ in range(PROMOTERS):
        mine, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(
            target=promoter, args=(theirs, start, mlflow_server.url, lake.storage.uri), daemon=True
        )
        process.start()
        pipes.append(mine)
        processes.append(process)
    try:
        for pipe in pipes:
            assert pipe.poll(240), "a promoter did not start"
            assert pipe.recv() == "ready"
        yield pipes
    finally:
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join(20)
            if process.is_alive():
                process.kill()


def play(rounds: int, promoters: list[Connection], client: RegistryClient, lake: Lake) -> None:
    name, champion = fresh_name("race"), None
    for number in range(1, rounds + 1):
        candidates = [bare_version(client, lake, name) for _ in promoters]
        for pipe, candidate in zip(promoters, candidates, strict=True):
            pipe.send((name, candidate.version, champion))
        answers = []
        for pipe in promoters:
            assert pipe.poll(300), "a promoter did not answer"
            answers.append(pipe.recv())

        assert [answer for answer in answers if isinstance(answer, str)] == []
        decisions = [record_from_json(answer) for answer in answers]
        assert Counter(d.outcome for d in decisions) == {"promoted": 1, "held": PROMOTERS - 1}
        assert all(d.reason.startswith("superseded") for d in decisions if d.outcome == "held")
        winner = next(d for d in decisions if isinstance(d, PromotionDecision) and d.outcome == "promoted")
        champion = winner.to_version

        now = ledger.state(lake, name, "champion")
        assert [entry.sequence for entry in now.entries] == list(range(1, number * (PROMOTERS + 1) + 1))
        assert now.current_version == champion == client.aliases(name)["champion"]
        assert now.unapplied is None
    assert ledger.verify_chain(lake, name) == []


def test_of_sixteen_promoters_one_wins_each_round(
    promoters: list[Connection], mlflow_server: Any, lake: Lake
) -> None:
    play(5, promoters, RegistryClient(mlflow_server.settings()), lake)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_of_sixteen_promoters_one_wins_each_of_fifty_rounds(
    promoters: list[Connection], mlflow_server: Any, lake: Lake
) -> None:
    play(50, promoters, RegistryClient(mlflow_server.settings()), lake)
