"""The steps of a rollout, each done so that it can be done again.

For :mod:`airflow_provider_xops.serving.targets.rollout`, which says when.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from airflow_provider_xops.errors import UnavailableError, XOpsError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DeploymentStep, ModelVersion, Outcome, PromotionDecision
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.targets import _journal as names
from airflow_provider_xops.serving.targets._journal import Journal, PlannedStep
from airflow_provider_xops.serving.targets._ledger_side import (
    judge_decision,
    overtaken,
    standing,
    undo,
)
from airflow_provider_xops.serving.targets._time import Cancelled, ComeBack, Patience, Time
from airflow_provider_xops.serving.targets._window import watch
from airflow_provider_xops.serving.targets.base import Readiness, ServingBackend
from airflow_provider_xops.serving.targets.golden import GoldenRows, Judged, ask_golden
from airflow_provider_xops.serving.targets.health import HealthCondition

__all__ = ["Work"]

log = logging.getLogger(__name__)

T = TypeVar("T")
# How often every replica is asked, at the end, which version it serves.
CONFIRMATIONS = 3
SHARE_WITHIN = 1e-6
CATCHING_UP = "catching up"


@dataclass(kw_only=True)
class Work:
    """One process's try at a deployment, or its part of a try that is elsewhere while it waits."""

    lake: Lake
    client: RegistryClient
    backend: ServingBackend
    model: ModelVersion
    journal: Journal
    decide: Callable[[], PromotionDecision] | None
    actor: Actor
    time: Time
    patience: Patience
    last_try: bool = False
    # The step that is done now; waits are remembered by it.
    _at: str = ""

    @property
    def alias(self) -> str:
        """The alias that the deployment is about."""
        return self.journal.deployment.alias

    @property
    def setting(self) -> dict[str, Any]:
        """How the deployment was asked for when it began: a later try goes on as it was begun."""
        return self.journal.deployment.settings

    @property
    def _decides(self) -> bool:
        return bool(self.setting.get("decides", True))

    @functools.cached_property
    def golden_rows(self) -> GoldenRows:
        """The golden rows, read once."""
        return GoldenRows.of(self.lake, self.model)

    def run(self, *, resumed: bool) -> None:
        """Do the steps that are left.

        :param resumed: another process may have been killed in the middle of a step.
        :raises UnavailableError: something did not answer; nothing was undone, the next try goes on.
        :raises ComeBack: a wait goes on elsewhere.
        """
        if self.journal.failed is not None:
            self.fail(f"{self.journal.failed.step}: {self.journal.failed.message}")
            return
        if resumed and not self._guarded(None, self._catch_up):
            return
        for step in self.journal.plan:
            if self.journal.get(step) is not None:
                continue
            if not self._guarded(step, functools.partial(self._do, step)):
                return

    def fail(self, message: str, *, on_failure: str | None = None) -> None:
        """Give the old version its requests back, undo the ledger's entry as told, and end the deployment."""
        if self.journal.aborted is not None:
            return
        deployment = self.journal.deployment
        log.warning("Deployment %s goes back: %s.", deployment.record_id[:12], message)
        # Callers first: their answers do not wait for MLflow.
        self._patiently(lambda: self.backend.abort(deployment, self.model), "abort", here=True)
        said = ""
        if self._decides:
            said = undo(
                self.lake, self.client, self.model, deployment, message,
                roll_back=(on_failure or self.setting.get("on_failure", "rollback")) == "rollback",
                actor=self.actor, as_of=self.time.clock(),
            )  # fmt: skip
        details = {"ledger": said} if said else {}
        self.journal.abort(Outcome.FAILED, message=message, details=details)

    def stop(self, why: str) -> None:
        """The work is not wanted any more: back to the old version, unless the ledger has decided already."""
        if self._decides and standing(self.lake, self.model, self.alias) is not None:
            log.warning(
                "Stopped (%s). The champion is %s: the shares stay as they are. The same work goes on,"
                " `xops deploy --abort %s` goes back.",
                why,
                self.model.ref,
                self.journal.deployment.record_id,
            )
            return
        self.backend.abort(self.journal.deployment, self.model)
        self.journal.abort(Outcome.ERRORED, message=why)

    def _guarded(self, step: PlannedStep | None, act: Callable[[], Any]) -> bool:
        """Act, unless the deployment was ended by somebody else; whether to go on."""
        if self.journal.look_aborted():
            log.warning("The deployment was ended meanwhile: %s.", self.journal.steps[-1].message)
            return False
        decided = next((each for each in self.journal.steps if each.step == names.DECIDE), None)
        later = overtaken(self.lake, self.model, self.alias, decided)
        if later:
            self.fail(later)
            return False
        self.time.check()
        self._at = step.name + str(step.number) if step else CATCHING_UP
        try:
            ended = act()
        except (Cancelled, ComeBack):
            raise
        except Exception as error:
            if isinstance(error, XOpsError) and error.retryable and not self.last_try:
                raise
            what = error.what if isinstance(error, XOpsError) else type(error).__name__
            if step is not None:
                self.journal.write(step, Outcome.ERRORED, message=what)
            self.fail(f"{step.name if step else 'going on'}: {what}")
            raise
        if isinstance(ended, DeploymentStep) and ended.outcome is not Outcome.PASSED:
            self.fail(f"{ended.step}: {ended.message}")
            return False
        return self.journal.aborted is None

    def _do(self, step: PlannedStep) -> DeploymentStep:
        act = {
            names.LOAD: self._load,
            names.READY: self._ready,
            names.GOLDEN: self._golden,
            names.DECIDE: self._decide,
            names.SHIFT: self._shift,
            names.HEALTH: self._health,
            names.CONFIRM: self._confirm,
            names.FINISH: self._finish,
        }[step.name]
        outcome, message, details = act(step)
        return self.journal.write(step, outcome, message=message, details=details)

    def _catch_up(self) -> None:
        """After a kill: see that the target is where the last ended step left it, and put it there if not."""
        if not self.journal.has_passed(names.LOAD) or self.journal.has_passed(names.FINISH):
            return
        deployment = self.journal.deployment
        log.info("Going on with deployment %s.", deployment.record_id[:12])
        self._patiently(lambda: self.backend.prepare(deployment, self.model), "load")
        if self.journal.has_passed(names.READY):
            found = self._until(
                lambda: self.backend.ready(deployment, self.model), "ready", self.patience.load_s
            )
            if not found.ready:
                self.fail(f"after a restart: {found.reason}")
                return
        shares = [each.weight for each in self.journal.steps if each.step == names.SHIFT]
        if shares:
            self._share(shares[-1])

    @property
    def was_catching_up(self) -> bool:
        """Whether a wait that was left belongs to the catching up after a kill."""
        return any(name.startswith(CATCHING_UP) for name in self.time.memory)

    def _load(self, step: PlannedStep) -> tuple[Outcome, str, dict[str, Any]]:
        self._patiently(lambda: self.backend.prepare(self.journal.deployment, self.model), "load")
        return Outcome.PASSED, "", {}

    def _ready(self, step: PlannedStep) -> tuple[Outcome, str, dict[str, Any]]:
        deployment = self.journal.deployment
        found = self._until(lambda: self.backend.ready(deployment, self.model), "ready", self.patience.load_s)
        outcome = Outcome.PASSED if found.ready else Outcome.FAILED
        return outcome, found.reason, {"replicas": found.replicas}

    def _golden(self, step: PlannedStep) -> tuple[Outcome, str, dict[str, Any]]:
        if not self.setting.get("golden", True):
            return Outcome.PASSED, "left out, as asked", {"asked": 0}
        judged = self.ask(self.model.version)
        outcome = judged.outcome
        message = judged.message
        if outcome is Outcome.NO_DATA:
            message += "; golden=False deploys without them"
        return outcome, message, _of(judged)

    def _decide(self, step: PlannedStep) -> tuple[Outcome, str, dict[str, Any]]:
        assert self.decide is not None
        return judge_decision(self.lake, self.model, self.alias, self.decide())

    def _shift(self, step: PlannedStep) -> tuple[Outcome, str, dict[str, Any]]:
        found = self._share(step.weight)
        outcome = Outcome.PASSED if found.ready else Outcome.FAILED
        return outcome, found.reason, {"replicas": found.replicas}

    def _share(self, weight: float) -> Readiness:
        """Give the candidate a share, unless it has more already, and wait until every replica does it."""
        deployment = self.journal.deployment
        canary = self.setting.get("role", "canary") == "canary"

        def has_more() -> bool:
            share = self.backend.serving(self.model.name, self.alias).get(self.model.version, 0.0)
            return share >= weight - SHARE_WITHIN

        if canary and self._patiently(has_more, "serving"):
            # A target that follows the ledger has swapped already; the share is not taken back.
            return Readiness(ready=True, reason="it has them already")
        self._patiently(lambda: self.backend.shift(deployment, self.model, weight), "shift")
        return self._until(
            lambda: self.backend.settled(deployment, self.model, weight), "settled", self.patience.settle_s
        )

    def _health(self, step: PlannedStep) -> tuple[Outcome, str, dict[str, Any]]:
        """A window of requests, then the golden rows: ours are not among the requests that are counted."""
        condition = HealthCondition.of(self.setting.get("health"))
        deployment = self.journal.deployment
        previous = deployment.previous.version if deployment.previous else None
        watched = self._patiently(
            lambda: watch(
                self.backend, deployment, condition, previous=previous, baseline_ms=self._baseline(),
                seconds=float(self.setting.get("soak_seconds", 0.0)), patience=self.patience, time=self.time,
                name=f"{self._at}/window",
            ),
            "watch",
        )  # fmt: skip
        problems: list[str] = []
        golden = Outcome.NO_DATA
        if condition.golden and self.setting.get("golden", True):
            judged = self.ask(self.model.version)
            golden = judged.outcome
            problems += [judged.message] if golden is not Outcome.PASSED else []
        problems += watched.problems(condition, golden_passed=golden is Outcome.PASSED)
        details = {
            "golden": golden.value,
            "seconds": round(watched.seconds, 3),
            "gates": {gate.gate: gate.outcome.value for gate in watched.gates},
            **watched.figures(self.model.version, "candidate"),
            **watched.figures(previous, "previous"),
        }
        return (Outcome.FAILED if problems else Outcome.PASSED), "; ".join(problems), details

    def _baseline(self) -> float | None:
        """The previous version's 99th percentile in the last window in which it got requests."""
        steps = [each for each in self.journal.steps if each.step == names.HEALTH]
        found = [each.details.get("previous_p99_ms") for each in steps]
        known = [float(each) for each in found if each is not None]
        return known[-1] if known else None

    def _confirm(self, step: PlannedStep) -> tuple[Outcome, str, dict[str, Any]]:
        """The served version, from answers to requests that name none."""
        alone = step.weight == 1 and self.setting.get("role", "canary") == "canary"
        served: dict[int, int] = {}
        with self._wait("confirm", self.patience.settle_s) as (begun, deadline):
            while True:
                shares = self._patiently(lambda: self.backend.serving(self.model.name, self.alias), "serving")
                problem = ""
                if alone and shares.get(self.model.version, 0.0) < 1 - SHARE_WITHIN:
                    problem = f"the target says that it serves {_shares(shares)}"
                if alone and not problem and len(self.golden_rows):
                    for _ in range(CONFIRMATIONS):
                        judged = self.ask(None)
                        for version, times in judged.served.items():
                            served[version] = served.get(version, 0) + times
                        problem = problem or judged.message
                if not problem or self.time.clock() >= deadline:
                    break
                served = {}
                self._nap(begun, deadline)
        details = {
            "served": {str(version): times for version, times in sorted(served.items())},
            "shares": {str(version): share for version, share in sorted(shares.items())},
        }
        return (Outcome.FAILED if problem else Outcome.PASSED), problem, details

    def _finish(self, step: PlannedStep) -> tuple[Outcome, str, dict[str, Any]]:
        keep = bool(self.setting.get("keep_previous", True))
        deployment = self.journal.deployment
        if step.weight == 1 and self.setting.get("role", "canary") == "canary":
            self._patiently(lambda: self.backend.finish(deployment, self.model, keep_previous=keep), "finish")
        return Outcome.PASSED, "", {"keep_previous": keep}

    def ask(self, version: int | None) -> Judged:
        """The golden rows, to every replica."""
        tolerance = HealthCondition.of(self.setting.get("health")).tolerance
        return self._patiently(
            lambda: ask_golden(
                self.backend, self.golden_rows, self.model, alias=self.alias, version=version,
                tolerance=tolerance,
            ),
            "ask",
        )  # fmt: skip

    def _until(self, look: Callable[[], Readiness], what: str, seconds: float) -> Readiness:
        """Look until it is ready, it says that it never will be, or the time is over."""
        said = ""
        with self._wait(what, seconds) as (begun, deadline):
            while True:
                try:
                    found = look()
                except UnavailableError as error:
                    found = Readiness(ready=False, reason=error.what)
                if found.ready or found.failed or self.time.clock() >= deadline:
                    return found
                if found.reason != said:
                    log.info("Waiting: %s.", found.reason)
                    said = found.reason
                self._nap(begun, deadline)

    def _patiently(self, act: Callable[[], T], what: str, *, here: bool = False) -> T:
        """Act; again for some time while the target does not answer.

        :param here: it cannot wait until somebody comes back.
        :raises UnavailableError: it did not for as long as there is patience.
        """
        with self._wait(what, self.patience.settle_s) as (begun, deadline):
            while True:
                try:
                    return act()
                except UnavailableError as error:
                    if self.time.clock() >= deadline:
                        raise
                    log.info("Waiting: %s.", error.what)
                self._nap(None if here else begun, deadline)

    @contextlib.contextmanager
    def _wait(self, what: str, seconds: float) -> Iterator[tuple[datetime, datetime]]:
        """A wait of the present step: its beginning, which may have been in another process, and its end."""
        name = f"{self._at}/{what}"
        begun = self.time.memory.begun(name, self.time.clock())
        yield begun, begun + timedelta(seconds=seconds)
        del self.time.memory[name]

    def _nap(self, begun: datetime | None, deadline: datetime) -> None:
        left = (deadline - self.time.clock()).total_seconds()
        self.time.nap(self.patience.poll_s, since=begun, left=max(left, 0.0))


def _of(judged: Judged) -> dict[str, Any]:
    return {
        "served": {str(version): times for version, times in sorted(judged.served.items())},
        "slowest_ms": judged.slowest_ms,
        "gates": {gate.gate: gate.outcome.value for gate in judged.gates},
    }


def _shares(shares: dict[int, float]) -> str:
    return ", ".join(f"v{version} {share:g}" for version, share in sorted(shares.items())) or "nothing"
