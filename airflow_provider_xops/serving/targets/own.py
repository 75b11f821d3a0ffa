"""The servers of ``xops serve`` as a target: one or many replicas that follow one alias of one lake.

Nothing is pushed into them. What requests go where is a record in the lake (see
:mod:`airflow_provider_xops.serving.traffic`), which every replica reads; this target writes it, tells the
replicas to look now, and asks each of them what it serves. A replica that was away, or is started in the
middle of a rollout, comes to the same shares.

What it does not do: it starts, scales and stops no server, and it sees only the replicas that it was told of;
the others follow all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, ConflictError, Superseded, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    Deployment,
    ModelVersion,
    TrafficSplit,
    Variant,
    VariantRole,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.serving.plan import ServingPlan, plan_of
from airflow_provider_xops.serving.targets._own_replica import (
    Counted,
    Replica,
    counted_from_json,
    counted_to_json,
    difference,
)
from airflow_provider_xops.serving.targets.base import Answer, Observation, Readiness, ServingBackend
from airflow_provider_xops.serving.traffic import last_split, split_traffic

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OwnServers"]

log = logging.getLogger(__name__)

SHARE_WITHIN = 1e-6


class OwnServers(ServingBackend):
    """Replicas of ``xops serve`` that follow an alias of this lake.

    :param hosts: the address of each replica, without credentials. :param api_key: one that may manage them.
    :param timeout_s: seconds one request to a replica may take.

    >>> target = OwnServers(lake, ["http://models-1:8080", "http://models-2:8080"], actor=actor, clock=now)
    ... # doctest: +SKIP
    >>> target.serving("late", "champion") # doctest: +SKIP
    {3: 1.0}
    """

    kind = "xops"
    supports_shadow = True
    follows_ledger = True

    def __init__(
        self,
        lake: Lake,
        hosts: Sequence[str],
        *,
        api_key: str = "",
        timeout_s: float = 10.0,
        actor: Actor,
        clock: Callable[[], datetime],
    ) -> None:
        if not hosts:
            raise ArgumentError(
                "no server is named", code="argument.hosts", todo="give the address of each replica"
            )
        self.lake = lake
        self.replicas = tuple(Replica(host, api_key=api_key, timeout_s=timeout_s) for host in hosts)
        self._actor = actor
        self._clock = clock

    @property
    def endpoint(self) -> str:
        """All servers that follow this lake are one place: what they serve is decided in it."""
        return f"lake:{self.lake.lake_id}"

    def prepare(self, deployment: Deployment, model: ModelVersion) -> None:
        """Have every replica load the version beside what it serves.

        :raises ConflictError: ``conflict.canary``: another version is being tried out on callers.
        :raises Superseded: ``superseded.traffic``: the alias has moved since it shared the requests.
        """
        plan, last = self._now(deployment)
        whole = bool(deployment.settings.get("decides", True))
        mine = _part_of(plan.variants, model)
        champion = _champion(plan)
        if champion is not None and _is(champion, model):
            self._look_now()
            return
        if mine is not None and plan.split is not None and plan.split.deployment == deployment.record_id:
            self._look_now()
            return
        self._see_that_it_stands(plan, last, deployment, model)
        others = [each for each in plan.variants if each.role is VariantRole.CANARY and not _is(each, model)]
        if others:
            raise ConflictError(
                f"v{others[0].version} of {plan.model} answers {others[0].weight:g} of the requests",
                code="conflict.canary",
                why="it is tried out beside the champion; of two at a time none could be judged",
                todo="end its deployment first: `xops deploy --abort ID`",
                retryable=False,
            )
        part = mine if mine is not None else _variant(model, VariantRole.STANDBY, 0.0)
        variants = [each for each in plan.variants if not _is(each, model)]
        self._write(
            deployment, [*variants, part], last, rollout=whole, reason=f"v{model.version} is loaded beside"
        )

    def ready(self, deployment: Deployment, model: ModelVersion) -> Readiness:
        """Whether every replica has loaded it, and its own golden answers were right there."""
        waiting, count = [], 0
        for replica in self.replicas:
            status = replica.status(model.name, deployment.alias)
            # A model that was made again has had other versions of these numbers.
            if status.loaded & {(model.version, model.created_at_ms), (model.version, None)}:
                count += 1
                continue
            failure = status.failed.get(model.version)
            if failure is not None and failure.startswith("model."):
                return Readiness(
                    ready=False, failed=True, reason=f"{replica.url} refuses v{model.version}: {failure}"
                )
            waiting.append(
                f"{replica.url} has not loaded v{model.version}" + (f": {failure}" if failure else "")
            )
        return Readiness(ready=not waiting, reason="; ".join(waiting[:3]), replicas=count)

    def ask(
        self, model: ModelVersion, frame: pd.DataFrame, *, alias: str, version: int | None
    ) -> tuple[Answer, ...]:
        return tuple(replica.ask(model.name, alias, frame, version=version) for replica in self.replicas)

    def shift(self, deployment: Deployment, model: ModelVersion, weight: float) -> None:
        """Write the shares.

        :raises Superseded: ``superseded.traffic``: somebody else has shared the requests anew, or the alias
            has moved since: what a rollback has ended does not begin again by itself.
        """
        plan, last = self._now(deployment)
        shadow = deployment.settings.get("role") == "shadow"
        if plan.split is not None and plan.split.deployment != deployment.record_id:
            raise Superseded(
                f"the traffic of {plan.model}/{plan.alias} was shared anew by somebody else",
                code="superseded.traffic",
                why=f"split {plan.split.sequence}: {plan.split.reason}",
                todo="look at `xops deployments`, and deploy again if it is still wanted",
            )
        self._see_that_it_stands(plan, last, deployment, model)
        rest = [
            each
            for each in plan.variants
            if each.role in (VariantRole.SHADOW, VariantRole.STANDBY) and not _is(each, model)
        ]
        base = self._base(plan, deployment, model)
        if shadow:
            variants = [*base, _variant(model, VariantRole.SHADOW, weight), *rest]
        elif weight >= 1 or not base:
            back = [_as(each, VariantRole.STANDBY, 0.0) for each in base]
            variants = [_variant(model, VariantRole.PRIMARY, 1.0), *back, *rest]
        else:
            shares = [_as(each, VariantRole.PRIMARY, 1.0 - weight) for each in base]
            variants = [*shares, _variant(model, VariantRole.CANARY, weight), *rest]
        champion = plan.champion is not None and _decided(plan, model)
        self._write(
            deployment, variants, last,
            rollout=bool(deployment.settings.get("decides", True)) and not (champion and weight >= 1),
            reason=f"v{model.version} gets {weight:g} of the requests",
        )  # fmt: skip

    def settled(self, deployment: Deployment, model: ModelVersion, weight: float) -> Readiness:
        shadow = deployment.settings.get("role") == "shadow"
        waiting, count = [], 0
        for replica in self.replicas:
            status = replica.status(model.name, deployment.alias)
            share = (
                status.shadows.get(model.version, 0.0) if shadow else status.shares.get(model.version, 0.0)
            )
            if abs(share - weight) <= SHARE_WITHIN:
                count += 1
            else:
                waiting.append(f"{replica.url} gives v{model.version} {share:g} of the requests")
        return Readiness(ready=not waiting, reason="; ".join(waiting[:3]), replicas=count)

    def serving(self, model: str, alias: str) -> dict[int, float]:
        """The mean of the replicas' shares."""
        found: dict[int, float] = {}
        for replica in self.replicas:
            for version, share in replica.status(model, alias).shares.items():
                found[version] = found.get(version, 0.0) + share / len(self.replicas)
        return found

    def mark(self, deployment: Deployment, *, as_of: datetime) -> Any:
        return {"as_of": as_of.isoformat(), "counted": counted_to_json(self._counted(deployment))}

    def observe(self, deployment: Deployment, *, since: Any, as_of: datetime) -> Observation:
        """Differences of the replicas' own counters, added up. A replica that was restarted counts anew."""
        begin = datetime.fromisoformat(since["as_of"])
        versions = difference(counted_from_json(since["counted"]), self._counted(deployment))
        return Observation(versions=versions, seconds=(as_of - begin).total_seconds())

    def _counted(self, deployment: Deployment) -> dict[str, Mapping[int, Counted]]:
        name, alias = deployment.model.name, deployment.alias
        return {replica.url: replica.status(name, alias).counted for replica in self.replicas}

    def finish(self, deployment: Deployment, model: ModelVersion, *, keep_previous: bool) -> None:
        """The version alone. The servers keep the version a rollback would go to in any case."""
        plan, last = self._now(deployment)
        if plan.split is None or plan.split.deployment != deployment.record_id:
            return
        rest = [
            each for each in plan.variants if not _is(each, model) and each.role is not VariantRole.PRIMARY
        ]
        if not keep_previous:
            rest = [each for each in rest if each.role is not VariantRole.STANDBY]
        variants = [_variant(model, VariantRole.PRIMARY, 1.0), *rest]
        self._write(deployment, variants, last, rollout=False, reason=f"v{model.version} is in service")

    def abort(self, deployment: Deployment, model: ModelVersion) -> None:
        plan, last = self._now(deployment)
        ours = plan.split is not None and plan.split.deployment == deployment.record_id
        # Its entry has made the version champion. What a trial was about may be champion by another's.
        its_entry = _decided(plan, model) and bool(deployment.settings.get("decides", True))
        if not ours and not (plan.split is None and its_entry and deployment.previous):
            # The ledger alone decides, or somebody else has shared the requests since.
            self._look_now()
            return
        base = self._base(plan, deployment, model)
        if not base:
            # The first version of the alias: there is none to go back to.
            base = [each for each in plan.variants if _is(each, model)] if _decided(plan, model) else []
        rest = [each for each in plan.variants if each.role is VariantRole.SHADOW and not _is(each, model)]
        variants = [*(_as(each, VariantRole.PRIMARY, 1.0) for each in base), *rest]
        rollout = _decided(plan, model) and not any(_is(each, model) for each in base)
        self._write(deployment, variants, last, rollout=rollout, reason=f"back from v{model.version}")

    def _see_that_it_stands(
        self, plan: ServingPlan, last: TrafficSplit | None, deployment: Deployment, model: ModelVersion
    ) -> None:
        mine = last is not None and last.deployment == deployment.record_id
        if mine and plan.split is None and not _decided(plan, model):
            entry = plan.champion
            raise Superseded(
                f"the alias {plan.model}/{plan.alias} has moved since v{model.version} got its share",
                code="superseded.traffic",
                why=f"entry {entry.sequence}: {entry.outcome.value}" if entry else "it was retired",
                todo="look at `xops history`, and deploy again if it is still wanted",
            )

    def _now(self, deployment: Deployment) -> tuple[ServingPlan, TrafficSplit | None]:
        name, alias = deployment.model.name, deployment.alias
        last = last_split(self.lake, name, alias)
        return plan_of(ledger.state(self.lake, name, alias), last), last

    def _base(self, plan: ServingPlan, deployment: Deployment, model: ModelVersion) -> list[Variant]:
        """The version that answers but for this deployment; empty: there is none."""
        primary = _champion(plan)
        if primary is not None and not _is(primary, model):
            return [_as(primary, VariantRole.PRIMARY, 1.0)]
        previous = deployment.previous
        if previous is None:
            return []
        return [
            Variant(
                version=previous.version,
                created_at_ms=previous.created_at_ms,
                role=VariantRole.PRIMARY,
                weight=1.0,
            )
        ]

    def _write(
        self,
        deployment: Deployment,
        variants: Sequence[Variant],
        last: TrafficSplit | None,
        *,
        rollout: bool,
        reason: str,
    ) -> None:
        """Write a split decided on the last one, unless it says that already, and have the replicas look."""
        same = (
            last is not None
            and (last.deployment, last.rollout) == (deployment.record_id, rollout)
            and set(last.variants) == set(variants)
            and last.basis == self._now(deployment)[0].basis
        )
        if not same:
            actor = Actor(
                producer=self._actor.producer,
                idempotency_key=f"{deployment.record_id}/{reason}",
                fence=self._actor.fence,
            )
            split_traffic(
                self.lake, model=deployment.model.name, alias=deployment.alias, variants=variants,
                rollout=rollout, deployment=deployment.record_id, reason=reason,
                expected=last.sequence if last else 0, actor=actor, as_of=self._clock(),
            )  # fmt: skip
        self._look_now()

    def _look_now(self) -> None:
        """Tell the replicas; one that does not hear looks by itself in a moment."""
        for replica in self.replicas:
            try:
                replica.refresh()
            except UnavailableError as error:
                log.info("Not told to look now: %s.", error.what)


def _variant(model: ModelVersion, role: VariantRole, weight: float) -> Variant:
    return Variant(version=model.version, created_at_ms=model.created_at_ms, role=role, weight=weight)


def _as(variant: Variant, role: VariantRole, weight: float) -> Variant:
    return Variant(version=variant.version, created_at_ms=variant.created_at_ms, role=role, weight=weight)


def _is(variant: Variant, model: ModelVersion) -> bool:
    return (variant.version, variant.created_at_ms) == (model.version, model.created_at_ms)


def _part_of(variants: Sequence[Variant], model: ModelVersion) -> Variant | None:
    return next((each for each in variants if _is(each, model)), None)


def _champion(plan: ServingPlan) -> Variant | None:
    return next((each for each in plan.variants if each.role is VariantRole.PRIMARY), None)


def _decided(plan: ServingPlan, model: ModelVersion) -> bool:
    """Whether the ledger says that this version is the champion."""
    entry = plan.champion
    return entry is not None and (entry.to_version, entry.to_created_at_ms) == (
        model.version,
        model.created_at_ms,
    )
