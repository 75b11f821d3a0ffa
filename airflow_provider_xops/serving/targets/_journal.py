"""What a deployment has done so far, as records: read again by whoever goes on after a kill.

For the rollout. Every deployment has the same steps in the same order, so each step's record has a name that
is known beforehand: the first writer of it counts, and a process that was believed dead changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, Deployment, DeploymentStep, Outcome, digest_of

__all__ = [
    "ABORT",
    "CONFIRM",
    "DECIDE",
    "FINISH",
    "GOLDEN",
    "HEALTH",
    "LOAD",
    "READY",
    "SHIFT",
    "Journal",
    "PlannedStep",
    "last_word",
    "open_deployments",
    "planned",
    "steps_of",
]

log = logging.getLogger(__name__)

LOAD, READY, GOLDEN, DECIDE, SHIFT = "load", "ready", "golden", "decide", "shift"
HEALTH, CONFIRM, FINISH, ABORT = "health", "confirm", "finish", "abort"
LOOK_BACK = 20


@dataclass(frozen=True)
class PlannedStep:
    """A step of a deployment: its place from 1, its name, and the candidate's share after it."""

    number: int
    name: str
    weight: float


def planned(shares: Sequence[float], *, decides: bool) -> tuple[PlannedStep, ...]:
    """The steps of a deployment that shifts in these shares.

    :param decides: the candidate becomes the champion on the way.

    >>> [step.name for step in planned((0.5, 1.0), decides=True)]
    ['load', 'ready', 'golden', 'decide', 'shift', 'health', 'shift', 'health', 'confirm', 'finish']
    """
    names = [(LOAD, 0.0), (READY, 0.0), (GOLDEN, 0.0)]
    if decides:
        names.append((DECIDE, 0.0))
    for share in shares:
        names += [(SHIFT, share), (HEALTH, share)]
    names += [(CONFIRM, shares[-1]), (FINISH, shares[-1])]
    return tuple(PlannedStep(number, name, weight) for number, (name, weight) in enumerate(names, start=1))


class Journal:
    """The steps of one deployment.

    :param clock: gives the moment a step ended, UTC.
    """

    def __init__(
        self, lake: Lake, deployment: Deployment, *, actor: Actor, clock: Callable[[], datetime]
    ) -> None:
        self.lake = lake
        self.deployment = deployment
        self.plan = planned(deployment.steps, decides=_decides(deployment))
        self.actor = actor
        self.clock = clock
        found = steps_of(lake, deployment)
        self._aborted = next((each for each in found if each.step == ABORT), None)
        self._done = {each.number: each for each in found if each.step != ABORT}

    @property
    def steps(self) -> tuple[DeploymentStep, ...]:
        """The steps that have ended, in order."""
        last = (self._aborted,) if self._aborted else ()
        return (*(self._done[number] for number in sorted(self._done)), *last)

    @property
    def aborted(self) -> DeploymentStep | None:
        """The step that ended it without success; None: it goes on, or has succeeded."""
        return self._aborted

    def look_aborted(self) -> bool:
        """Whether it was ended without success meanwhile, also by somebody else."""
        if self._aborted is None:
            self._aborted = _step(self.lake, self.deployment, len(self.plan) + 1, ABORT)
        return self._aborted is not None

    @property
    def finished(self) -> bool:
        """Whether its last step has passed."""
        last = self._done.get(len(self.plan))
        return last is not None and last.outcome is Outcome.PASSED and self._aborted is None

    @property
    def failed(self) -> DeploymentStep | None:
        """The step that did not pass; what is left to do then is to abort."""
        return next(
            (each for each in self.steps if each.outcome is not Outcome.PASSED and each.step != ABORT), None
        )

    def has_passed(self, name: str) -> bool:
        """Whether a step of this name has passed."""
        return any(each.step == name and each.outcome is Outcome.PASSED for each in self._done.values())

    def get(self, step: PlannedStep) -> DeploymentStep | None:
        """What is recorded of a step."""
        return self._done.get(step.number)

    def write(
        self,
        step: PlannedStep,
        outcome: Outcome,
        *,
        message: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> DeploymentStep:
        """Record that a step has ended; gives what counts, which may be another process's word."""
        made = DeploymentStep(
            recorded_at=self.clock(),
            produced_by=self.actor.producer,
            deployment=self.deployment.record_id,
            number=step.number,
            step=step.name,
            outcome=outcome,
            weight=step.weight,
            message=message,
            details=dict(details or {}),
        )
        if not self.lake.evidence.put(made, quiet=True):
            found = self.lake.evidence.get(DeploymentStep.kind, made.record_id)
            made = found if isinstance(found, DeploymentStep) else made
        if made.step == ABORT:
            self._aborted = made
        else:
            self._done[made.number] = made
        log.info(
            "Deployment %s, step %d of %d, %s: %s%s.",
            self.deployment.record_id[:12],
            step.number,
            len(self.plan) + 1,
            step.name,
            made.outcome.value,
            f" ({made.message})" if made.message else "",
        )
        return made

    def abort(
        self, outcome: Outcome, *, message: str, details: Mapping[str, Any] | None = None
    ) -> DeploymentStep:
        """Record that the deployment has ended without success."""
        last = PlannedStep(len(self.plan) + 1, ABORT, 0.0)
        return self.write(last, outcome, message=message, details=details)


def steps_of(lake: Lake, deployment: Deployment) -> tuple[DeploymentStep, ...]:
    """The recorded steps of a deployment, in order. A step's name is known, so nothing is listed."""
    plan = planned(deployment.steps, decides=_decides(deployment))
    found = []
    for step in plan:
        record = _step(lake, deployment, step.number, step.name)
        if record is None:
            break
        found.append(record)
    aborted = _step(lake, deployment, len(plan) + 1, ABORT)
    return (*found, *((aborted,) if aborted else ()))


def last_word(lake: Lake, deployment: Deployment) -> DeploymentStep | None:
    """The step that ended a deployment, good or bad; None: it is under way."""
    last = len(planned(deployment.steps, decides=_decides(deployment)))
    aborted = _step(lake, deployment, last + 1, ABORT)
    return aborted if aborted is not None else _step(lake, deployment, last, FINISH)


def open_deployments(lake: Lake, *, model: str, alias: str, target: str, endpoint: str) -> list[Deployment]:
    """The deployments of an alias at one place that have begun and not ended, oldest first.

    A deployment that finds an open one does not begin, so only the newest can be open.
    """
    place = (model, alias, target, endpoint)
    found = [
        each
        for each in lake.evidence.all(Deployment.kind)
        if isinstance(each, Deployment) and (each.model.name, each.alias, each.target, each.endpoint) == place
    ]
    newest = sorted(found, key=lambda each: (each.recorded_at, each.record_id))[-LOOK_BACK:]
    return [each for each in newest if last_word(lake, each) is None]


def _decides(deployment: Deployment) -> bool:
    return bool(deployment.settings.get("decides", True))


def _step(lake: Lake, deployment: Deployment, number: int, name: str) -> DeploymentStep | None:
    # The record's id is made of these alone.
    record_id = digest_of([DeploymentStep.kind, deployment.record_id, number, name])[:32]
    try:
        found = lake.evidence.get(DeploymentStep.kind, record_id)
    except NotFoundError:
        return None
    return found if isinstance(found, DeploymentStep) else None
