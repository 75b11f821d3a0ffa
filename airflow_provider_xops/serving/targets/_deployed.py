"""How a deployment ended, or how far it is: read from its records.

For :mod:`airflow_provider_xops.serving.targets.rollout`, its public place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Deployment, DeploymentStep, Outcome, PromotionDecision
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.serving.targets._journal import (
    ABORT,
    CONFIRM,
    DECIDE,
    FINISH,
    Journal,
    steps_of,
)

__all__ = ["Deployed", "list_deployments", "result_of"]

GOES_ON = "it goes on when the same work runs again"


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """How a deployment ended.

    :param outcome: passed: the version serves as asked; failed: the old one serves; errored: it was
        cancelled, or has not ended.
    :param steps: the steps that ended, the last one saying why.
    :param served: the versions that answered at the end, with how often; empty unless it passed.
    :param decision: the ledger's entry that it asked for.
    :param reused: the same work had been done before.
    """

    deployment: Deployment
    outcome: Outcome
    steps: tuple[DeploymentStep, ...]
    message: str = ""
    served: Mapping[int, int] = field(default_factory=dict)
    decision: PromotionDecision | None = None
    reused: bool = False

    @property
    def state(self) -> str:
        """In words: in service, tried out, under way, failed, cancelled, or ended (after a try-out)."""
        names = [each.step for each in self.steps if each.outcome is Outcome.PASSED]
        if any(each.step == ABORT for each in self.steps):
            if FINISH in names:
                return "ended"
            return "failed" if self.outcome is Outcome.FAILED else "cancelled"
        if FINISH not in names:
            return "under way"
        return "in service" if self.deployment.settings.get("decides", True) else "tried out"


def result_of(lake: Lake, journal: Journal, *, reused: bool = False) -> Deployed:
    """What came of a deployment, with the ledger's entry."""
    found = dataclasses.replace(_read(journal.deployment, journal.steps), reused=reused)
    asked = next((each for each in found.steps if each.step == DECIDE), None)
    if asked is None or asked.details.get("sequence") is None:
        return found
    entries = ledger.entries(lake, found.deployment.model.name, found.deployment.alias)
    entry = next((each for each in entries if each.sequence == asked.details["sequence"]), None)
    return dataclasses.replace(found, decision=entry)


def list_deployments(lake: Lake, *, model: str | None = None, alias: str | None = None) -> list[Deployed]:
    """Deployments, oldest first, and how each ended; of every model and alias unless named.

    What it does not do: it gives no entries of the ledger (``decision``).
    """
    found = [
        each
        for each in lake.evidence.all(Deployment.kind)
        if isinstance(each, Deployment) and model in (None, each.model.name) and alias in (None, each.alias)
    ]
    ordered = sorted(found, key=lambda each: (each.recorded_at, each.record_id))
    return [_read(each, steps_of(lake, each)) for each in ordered]


def _read(deployment: Deployment, steps: tuple[DeploymentStep, ...]) -> Deployed:
    last = steps[-1] if steps else None
    outcome, message = Outcome.ERRORED, GOES_ON
    if last is not None and last.step == ABORT:
        outcome, message = last.outcome, last.message
    elif last is not None and last.step == FINISH and last.outcome is Outcome.PASSED:
        outcome, message = Outcome.PASSED, ""
    served: dict[int, int] = {}
    for step in steps:
        if step.step == CONFIRM and outcome is Outcome.PASSED:
            served = {int(version): times for version, times in step.details.get("served", {}).items()}
    return Deployed(deployment=deployment, outcome=outcome, steps=steps, message=message, served=served)
