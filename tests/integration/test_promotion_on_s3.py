"""Training to promotion with nothing on this machine's disk: the lake and MLflow's artifacts are in S3."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model, resolve_model
from airflow_provider_xops.registry.promote import promote
from tests import servers
from tests.integration.registry_steps import fitted, frame, fresh_name, train
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor

pytestmark = pytest.mark.server

PREFIX = f"artifacts-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def client(seaweedfs: servers.S3Server) -> Iterator[RegistryClient]:
    """A client without S3 keys: only the MLflow server has them."""
    keys = {
        "MLFLOW_S3_ENDPOINT_URL": seaweedfs.endpoint,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
        "AWS_DEFAULT_REGION": seaweedfs.region,
    }
    destination = f"s3://{seaweedfs.buckets[1]}/{PREFIX}"
    with servers.mlflow(artifacts_destination=destination, environment=keys) as server:
        yield RegistryClient(server.settings())


@pytest.fixture
def lake(seaweedfs: servers.S3Server) -> Lake:
    settings = seaweedfs.lake_settings(f"promotion-{uuid.uuid4().hex}")
    init_lake(settings, actor=an_actor(), as_of=AS_OF)
    return open_lake(settings)


def objects(seaweedfs: servers.S3Server, source_uri: str) -> dict[str, int]:
    """Keys and sizes of a logged model's files in MLflow's bucket."""
    answer: Any = seaweedfs.client().list_objects_v2(Bucket=seaweedfs.buckets[1], Prefix=f"{PREFIX}/")
    model_id = source_uri.removeprefix("models:/")
    return {each["Key"]: each["Size"] for each in answer.get("Contents", []) if model_id in each["Key"]}


def test_models_are_promoted_and_the_champion_loads_from_s3(
    seaweedfs: servers.S3Server, client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    first, second = (train(client, lake, name, key=key) for key in ("monday", "tuesday"))

    for model, champion in ((first, None), (second, first), (first, None)):
        result = promote(
            lake,
            client,
            model=model,
            expected=champion.version if champion else None,
            evaluation=a_recorded_evaluation(lake, model, champion),
            actor=an_actor(f"promote {model.version}, {champion is None}"),
            as_of=AS_OF,
        )
        # The first one's promotion is asked again by its own key: it is not decided again.
        assert result.decision.outcome is PromotionOutcome.PROMOTED

    assert result.reused
    assert client.aliases(name) == {"champion": 2}
    assert [str(entry.outcome) for entry in ledger.entries(lake, name)] == ["promoted", "applied"] * 2
    assert ledger.verify_chain(lake, name) == []
    there = resolve_model(lake, name)
    assert there == second
    expected = fitted().predict(frame()[0]).tolist()
    assert load_model(client, open_lake(lake.settings), there).predict(frame()[0]).tolist() == expected
    assert any(key.endswith("/MLmodel") for key in objects(seaweedfs, second.source_uri))


def test_a_file_changed_in_the_bucket_is_refused(
    seaweedfs: servers.S3Server, client: RegistryClient, lake: Lake
) -> None:
    model = train(client, lake, fresh_name())
    (key,) = [key for key in objects(seaweedfs, model.source_uri) if key.endswith("/xops.json")]
    seaweedfs.client().put_object(Bucket=seaweedfs.buckets[1], Key=key, Body=b"{}")

    with pytest.raises(ModelError, match=r"model\.digest_mismatch"):
        load_model(client, lake, model)
