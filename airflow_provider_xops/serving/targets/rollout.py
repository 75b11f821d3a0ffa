"""Bringing a version into service at a target, step by step; every step's failure leaves the old one serving.

For the deployment operator and ``xops deploy``. The order is the same at every target: load the version
beside what serves; wait until every replica has it; ask it the golden rows; enter it in the ledger; shift the
requests in steps, each followed by a window in which it must stay healthy; confirm from answers what is
served; keep or unload the old version.

**Killed.** Each step that ended is a record. The same work run again finds its deployment, asks the target
what is true, repeats what is not, and goes on after the last step. **Failed.** Before the ledger entry
nothing has changed for callers. After it the old version gets all requests back at once, and then the ledger
says so too (or is left as it is, for a person to decide). **Cancelled.** Before the ledger entry the
candidate is unloaded; after it everything stays as it is, and the same work run again goes on. **Waiting.**
Where the caller says so, long waits are not waited for here: the caller is told when to come back.

What it does not do: it judges no model (gates do, in the decision that it asks for), and it starts no server.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_provider_xops.errors import ArgumentError, ConflictError, NotFoundError, XOpsError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    Deployment,
    ModelRef,
    ModelVersion,
    Outcome,
    PromotionDecision,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.inputs import other_inputs
from airflow_provider_xops.registry.ledger_state import LedgerState
from airflow_provider_xops.registry.loading import get_model, recorded_version
from airflow_provider_xops.serving.targets._deployed import Deployed, list_deployments, result_of
from airflow_provider_xops.serving.targets._journal import (
    DECIDE,
    FINISH,
    Journal,
    last_word,
    open_deployments,
    steps_of,
)
from airflow_provider_xops.serving.targets._ledger_side import confirm_decision, standing
from airflow_provider_xops.serving.targets._time import (
    Cancelled,
    ComeBack,
    Memory,
    Patience,
    Time,
    check_seconds,
)
from airflow_provider_xops.serving.targets._work import Work
from airflow_provider_xops.serving.targets.base import ServingBackend, check_steps
from airflow_provider_xops.serving.targets.health import HealthCondition

__all__ = [
    "ComeBack",
    "Deployed",
    "Patience",
    "abort_deployment",
    "confirm_decision",
    "deploy",
    "leave_deployment",
    "list_deployments",
]

log = logging.getLogger(__name__)

Decide = Callable[[], PromotionDecision]
# In the memory of whoever comes back: the record id of its deployment.
LEFT = "deployment"


def deploy(
    lake: Lake,
    client: RegistryClient,
    backend: ServingBackend,
    *,
    model: ModelVersion,
    alias: str = "champion",
    steps: Sequence[float] = (0.1, 0.5, 1.0),
    decide: Decide | None,
    role: str = "canary",
    health: HealthCondition | None = None,
    soak_seconds: float = 60.0,
    golden: bool = True,
    keep_previous: bool = True,
    allow_new_inputs: bool = False,
    on_failure: str = "rollback",
    supersede: bool = False,
    last_try: bool = False,
    patience: Patience | None = None,
    actor: Actor,
    clock: Callable[[], datetime],
    wait: Callable[[float], None] = time.sleep,
    cancelled: Callable[[], bool] = bool,
    away_s: float | None = None,
    memory: Mapping[str, Any] | None = None,
) -> Deployed:
    """Bring ``model`` into service at a target as ``alias``.

    :param steps: the candidate's shares of the requests, rising. They end with 1.0 where it becomes champion.
    :param decide: makes or confirms the ledger's entry, once the golden answers were right; it is asked again
        after a kill and must then give the same entry. None: a canary or shadow only, and the ledger stays.
    :param role: ``canary``: it answers its share; ``shadow`` (only without ``decide``): it is asked beside
        the one that answers.
    :param health: what must hold in each window. :param soak_seconds: how long each window is.
    :param golden: whether answers to golden rows are needed before the decision.
    :param keep_previous: keep the old version loaded at the end, for a rollback.
    :param allow_new_inputs: whether it may need other columns than the previous version: what callers send
        today it would refuse.
    :param on_failure: what a failure after the ledger entry does there, once the old version has its requests
        back: ``rollback``, or ``hold`` (the entry stays until a person decides).
    :param supersede: end another deployment of this alias that is under way, instead of being refused; not
        one whose version is the champion already.
    :param last_try: nobody will run the same work again: what does not answer is a failure too.
    :param wait: sleeps for so many seconds. :param cancelled: asked between any two waits.
    :param away_s: seconds between two looks of a wait that is longer than a few seconds; the caller waits
        elsewhere then (``ComeBack``). None: all is waited for here.
    :param memory: that of the ``ComeBack`` after which this call is made.
    :returns: also when it failed: look at ``outcome``.
    :raises ArgumentError: ``argument.steps``, ``argument.health``, ``argument.on_failure``,
        ``argument.seconds``, ``argument.try_out``, ``argument.inputs_changed``.
    :raises ConflictError: ``conflict.deployment``: another one of this alias is under way at this target.
    :raises UnavailableError: the lake or MLflow did not answer, the target not within ``patience``; the same
        call goes on where it stopped.
    :raises ComeBack: only with ``away_s``: the same call goes on at its moment, with its memory, where the
        record id of the ``deployment`` is too.

    >>> deploy(lake, client, backend, model=model, decide=lambda: decision, steps=(0.1, 1.0), actor=actor,
    ...        clock=clock).outcome  # doctest: +SKIP
    <Outcome.PASSED: 'passed'>
    """
    if on_failure not in ("rollback", "hold"):
        raise ArgumentError(
            f"on_failure is {on_failure[:40]!r}", code="argument.on_failure", todo="use rollback or hold"
        )
    model = recorded_version(lake, model)
    shares = tuple(float(step) for step in steps)
    check_steps(backend, shares, role=role, whole=decide is not None)
    condition = health or HealthCondition()
    state = ledger.state(lake, model.name, alias)
    previous = _previous(lake, state, model)
    condition.check(backend, shares, previous=previous is not None)
    settings = {
        "role": role,
        "decides": decide is not None,
        "golden": golden,
        "health": condition.to_json(),
        "soak_seconds": check_seconds(soak_seconds, argument="soak_seconds"),
        "keep_previous": keep_previous,
        "on_failure": on_failure,
    }
    wanted = Deployment(
        recorded_at=clock(), produced_by=actor.producer, model=model.ref, alias=alias, target=backend.kind,
        endpoint=backend.endpoint, key=actor.idempotency_key, previous=previous, steps=shares,
        settings=settings,
    )  # fmt: skip
    # Whoever comes back goes on with the one that was left, also if somebody has ended it meanwhile.
    deployment, new = (_left(lake, memory), False) if memory else _own_or_new(lake, wanted, model)
    journal = Journal(lake, deployment, actor=actor, clock=clock)
    if journal.finished:
        log.info("This work has deployed %s before: deployment %s.", model.ref, deployment.record_id[:12])
        return result_of(lake, journal, reused=True)
    if new and previous is not None and not allow_new_inputs:
        _check_inputs(model, _version_of(lake, previous))
    if new and decide is None and standing(lake, model, alias) is not None:
        raise ArgumentError(
            f"{model.ref} is the {alias} already", code="argument.try_out",
            why="it answers every request", todo="try out another version",
        )  # fmt: skip
    if new or not journal.steps:
        # Killed right after it was written down, it has not looked whether it is alone.
        _begin(lake, backend, journal, supersede=supersede)
    work = Work(
        lake=lake, client=client, backend=backend, model=model, journal=journal, decide=decide, actor=actor,
        time=Time(clock=clock, wait=wait, cancelled=cancelled, away_s=away_s, memory=Memory(memory or {})),
        patience=patience or Patience(), last_try=last_try,
    )  # fmt: skip
    try:
        # Whoever comes back as told was not killed.
        work.run(resumed=not new and (not memory or work.was_catching_up))
    except ComeBack as later:
        later.memory = {**work.time.memory, LEFT: deployment.record_id}
        raise
    except Cancelled:
        _stop(work, "cancelled")
    except Exception:
        raise
    except BaseException:
        # The process is being ended: seconds are left.
        _stop(work, "the process was ended")
        raise
    return result_of(lake, journal)


def abort_deployment(
    lake: Lake,
    client: RegistryClient,
    backend: ServingBackend,
    deployment: Deployment,
    *,
    reason: str,
    on_failure: str | None = None,
    patience: Patience | None = None,
    actor: Actor,
    clock: Callable[[], datetime],
    wait: Callable[[float], None] = time.sleep,
) -> Deployed:
    """End a deployment that nobody goes on with, or a version being tried out: the old one alone again.

    :param on_failure: what happens to its ledger entry, if it has made one: as it was told, unless given.
    :raises ArgumentError: ``argument.reason``; ``argument.deployment``: it has ended, or is of another
        target.
    """
    if not reason.strip():
        raise ArgumentError("aborting needs a reason", code="argument.reason", todo="say why, in a sentence")
    if (deployment.target, deployment.endpoint) != (backend.kind, backend.endpoint):
        raise ArgumentError(
            f"deployment {deployment.record_id[:12]} is of {deployment.target} at {deployment.endpoint}",
            code="argument.deployment",
            todo=f"name that target, not {backend.kind} at {backend.endpoint}",
        )
    journal = Journal(lake, deployment, actor=actor, clock=clock)
    if journal.finished and deployment.settings.get("decides", True):
        raise ArgumentError(
            f"deployment {deployment.record_id[:12]} has ended well",
            code="argument.deployment",
            todo=f"`xops rollback {deployment.model.name}` takes the version out of service",
        )
    if journal.aborted is None:
        model = _version_of(lake, deployment.model)
        work = Work(
            lake=lake, client=client, backend=backend, model=model, journal=journal, decide=None, actor=actor,
            time=Time(clock=clock, wait=wait, cancelled=bool), patience=patience or Patience(),
        )  # fmt: skip
        work.fail(reason.strip(), on_failure=on_failure)
    return result_of(lake, journal)


def leave_deployment(
    lake: Lake,
    client: RegistryClient,
    backend: ServingBackend,
    deployment: Deployment,
    *,
    why: str,
    actor: Actor,
    clock: Callable[[], datetime],
) -> Deployed:
    """What ending the process of a rollout does, where there is none because it waits elsewhere.

    Before the ledger's entry the candidate is unloaded, and the deployment has ended; after it everything
    stays as it is. One that has ended already is left alone.

    :param why: kept in the record.
    :raises UnavailableError: the target did not answer; nothing has ended.
    """
    journal = Journal(lake, deployment, actor=actor, clock=clock)
    if journal.aborted is None and not journal.finished:
        Work(
            lake=lake, client=client, backend=backend, model=_version_of(lake, deployment.model),
            journal=journal, decide=None, actor=actor, patience=Patience(),
            time=Time(clock=clock, wait=time.sleep, cancelled=bool),
        ).stop(why)  # fmt: skip
    return result_of(lake, journal)


def _check_inputs(model: ModelVersion, previous: ModelVersion) -> None:
    """See that what callers send the previous version today is what the new one takes."""
    others = other_inputs(model, previous)
    if others is not None:
        raise ArgumentError(
            f"{model.ref} takes other columns than v{previous.version}, which serves",
            code="argument.inputs_changed",
            why=others.how,
            todo="let callers send both first, or say allow_new_inputs=True",
            context={"more": list(others.more), "fewer": list(others.fewer)},
        )  # fmt: skip


def _own_or_new(lake: Lake, wanted: Deployment, model: ModelVersion) -> tuple[Deployment, bool]:
    """The deployment of this work, unless it was aborted or undone since; else a new one to begin."""
    for attempt in itertools.count(1):
        key = wanted.key if attempt == 1 else f"{wanted.key}#{attempt}"
        made = dataclasses.replace(wanted, key=key, record_id="")
        try:
            found = lake.evidence.get(Deployment.kind, made.record_id)
        except NotFoundError:
            return made, True
        assert isinstance(found, Deployment)
        last = last_word(lake, found)
        if last is None:
            return found, False
        undone = found.settings.get("decides", True) and standing(lake, model, found.alias) is None
        if last.step == FINISH and not undone:
            return found, False
    raise AssertionError("counting does not end")


def _left(lake: Lake, memory: Mapping[str, Any]) -> Deployment:
    found = lake.evidence.get(Deployment.kind, str(memory[LEFT]))
    assert isinstance(found, Deployment)
    return found


def _begin(lake: Lake, backend: ServingBackend, journal: Journal, *, supersede: bool) -> None:
    """Write down that a deployment begins, unless another one of the alias is under way at this place.

    It is looked before and after: of two that begin at one moment at least one sees the other.
    """
    deployment = journal.deployment
    others = _others(lake, deployment)
    decided = [each for each in others if _has_decided(lake, each)]
    supersede = supersede and not decided
    if not others or supersede:
        lake.evidence.put(deployment)
        others = _others(lake, deployment)
        for other in others if supersede else ():
            its = Journal(lake, other, actor=journal.actor, clock=journal.clock)
            backend.abort(other, _version_of(lake, other.model))
            its.abort(Outcome.FAILED, message=f"superseded by deployment {deployment.record_id[:12]}")
        if not others or supersede:
            return
        journal.abort(Outcome.FAILED, message="another deployment was under way")
    other = (decided or others)[0]
    raise ConflictError(
        f"deployment {other.record_id[:12]} of {other.model} is under way at {other.endpoint}",
        code="conflict.deployment",
        why=f"it was begun by {other.produced_by.id} and has not ended",
        todo=f"let it end, run it again if it was killed, or `xops deploy --abort {other.record_id[:12]}`",
        context={"deployment": other.record_id},
    )


def _others(lake: Lake, deployment: Deployment) -> list[Deployment]:
    found = open_deployments(
        lake, model=deployment.model.name, alias=deployment.alias, target=deployment.target,
        endpoint=deployment.endpoint,
    )  # fmt: skip
    return [each for each in found if each.record_id != deployment.record_id]


def _has_decided(lake: Lake, deployment: Deployment) -> bool:
    """Whether a deployment has made its version the champion: it is brought to an end, not replaced."""
    if not deployment.settings.get("decides", True):
        return False
    if any(each.step == DECIDE and each.outcome is Outcome.PASSED for each in steps_of(lake, deployment)):
        return True
    # Killed between the entry and the record of the step.
    return standing(lake, _version_of(lake, deployment.model), deployment.alias) is not None


def _version_of(lake: Lake, ref: ModelRef) -> ModelVersion:
    return get_model(lake, ref.name, ref.version, created_at_ms=ref.created_at_ms)


def _previous(lake: Lake, state: LedgerState, model: ModelVersion) -> ModelRef | None:
    """The version that serves before: the champion, or the one before it if the candidate is that already."""
    for entry in reversed(state.championships):
        target = (entry.to_version, entry.to_created_at_ms)
        if entry.to_version is None or target == (model.version, model.created_at_ms):
            continue
        if target in state.blocked:
            continue
        return get_model(lake, model.name, entry.to_version, created_at_ms=entry.to_created_at_ms).ref
    return None


def _stop(work: Work, why: str) -> None:
    try:
        work.stop(why)
    except XOpsError as error:
        log.error("Stopping the deployment was not possible: %s", error)
