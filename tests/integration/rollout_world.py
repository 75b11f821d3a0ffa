"""A lake with trained versions of a model, promoted and deployed in named steps: for tests of rollouts."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ModelVersion, PromotionDecision
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.serving.targets.base import ServingBackend
from airflow_provider_xops.serving.targets.health import HealthCondition
from airflow_provider_xops.serving.targets.rollout import Deployed, Patience, deploy
from airflow_provider_xops.training.fit import train
from tests.unit.registry.builders import a_recorded_evaluation

QUICK = Patience(load_s=60, settle_s=20, requests_s=20, poll_s=0.2)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class World:
    """Versions of one model, all trained, none promoted but by the steps below."""

    lake: Lake
    client: RegistryClient
    name: str
    versions: list[ModelVersion]

    def actor(self, key: str) -> Actor:
        """Somebody who acts under a key."""
        return Actor.user("tester", key=f"{self.name}/{key}", fence=int(utc_now().timestamp() * 1e6))

    def promote(self, version: int, *, alias: str = "champion", key: str = "") -> PromotionDecision:
        """Put a version into the ledger, with a passed evaluation against the present champion."""
        now = ledger.current(self.lake, self.name, alias)
        model = self.versions[version - 1]
        before = None if now is None else now.to_version
        if before == version and now is not None:
            # A repetition: decided against the champion that there was then.
            before = now.from_version
        champion = None if before is None else self.versions[before - 1]
        return promote(
            self.lake,
            self.client,
            model=model,
            alias=alias,
            expected=before,
            evaluation=a_recorded_evaluation(self.lake, model, champion),
            actor=self.actor(key or f"promote-{version}"),
            as_of=utc_now(),
        ).decision

    def deploy(
        self, backend: ServingBackend, version: int, *, key: str = "deploy", **changes: Any
    ) -> Deployed:
        """Bring a version into service, quickly."""
        values: dict[str, Any] = {
            "model": self.versions[version - 1],
            "steps": (0.5, 1.0),
            "decide": lambda: self.promote(version),
            "health": HealthCondition(),
            "soak_seconds": 0.0,
            "patience": QUICK,
            "actor": self.actor(key),
            "clock": utc_now,
        }
        return deploy(self.lake, self.client, backend, **(values | changes))

    def outcomes(self, alias: str = "champion") -> list[tuple[str, int | None]]:
        """What the ledger says, without the applied entries."""
        return [
            (str(each.outcome), each.to_version)
            for each in ledger.entries(self.lake, self.name, alias)
            if str(each.outcome) != "applied"
        ]


def make_world(lake: Lake, client: RegistryClient, *, versions: int = 2) -> World:
    """Train versions of a small model whose predictions differ from version to version."""
    name = f"rollout-{uuid.uuid4().hex[:8]}"
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=160), rng.normal(size=160)
    late = (x + 0.5 * y + rng.normal(scale=0.3, size=160) > 0).astype(np.int64)
    table = pa.table({"x": x, "y": y, "late": late})
    act = Actor.user("tester", key=name, fence=1)
    made = commit(
        lake, f"t_{name.replace('-', '_')}", [Segment("d", "f", table.to_reader)], actor=act, as_of=utc_now()
    )
    trained = [
        train(
            lake,
            client,
            dataset=made.record.ref,
            estimator="sklearn.linear_model:LogisticRegression",
            params={"C": 10.0**-number},
            target="late",
            split={"kind": "random", "fraction": 0.3},
            model_name=name,
            actor=Actor.user("tester", key=f"{name}-{number}", fence=1),
            as_of=utc_now(),
        )
        for number in range(versions)
    ]
    return World(lake=lake, client=client, name=name, versions=list(trained))


def with_other_inputs(world: World) -> ModelVersion:
    """One more version of the model, which takes fewer columns; not among ``versions``."""
    settings = world.versions[0].training
    assert settings is not None
    return train(
        world.lake,
        world.client,
        dataset=settings.dataset,
        estimator="sklearn.linear_model:LogisticRegression",
        features=["x"],
        target="late",
        split={"kind": "random", "fraction": 0.3},
        model_name=world.name,
        actor=world.actor("other-inputs"),
        as_of=utc_now(),
    )


def shown(deployed: Deployed) -> list[tuple[str, str, float]]:
    """The steps in short: name, outcome, share."""
    return [(step.step, str(step.outcome), step.weight) for step in deployed.steps]
