"""What a deployment has to do with the ledger: the entry it rests on, whether it stands, and its undoing.

For the rollout.
"""

from __future__ import annotations

import functools
import logging
from datetime import datetime
from typing import Any

from airflow_provider_xops.errors import ArgumentError, XOpsError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    Deployment,
    DeploymentStep,
    ModelVersion,
    Outcome,
    PromotionDecision,
    PromotionOutcome,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.apply import apply_decision
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger_state import CHAMPION_MAKING
from airflow_provider_xops.registry.rollback import rollback

__all__ = ["confirm_decision", "judge_decision", "overtaken", "standing", "undo"]

log = logging.getLogger(__name__)


def confirm_decision(
    lake: Lake, client: RegistryClient, decision: PromotionDecision, *, actor: Actor, as_of: datetime
) -> PromotionDecision:
    """The entry of the ledger that a decision made elsewhere is, applied in MLflow if it was not yet.

    :raises ArgumentError: ``argument.decision``: the ledger has no such entry.
    """
    state = ledger.state(lake, decision.model, decision.alias)
    found = next((each for each in state.entries if each.sequence == decision.sequence), None)
    if found is None or found.record_id != decision.record_id:
        raise ArgumentError(
            f"the ledger of {decision.model}/{decision.alias} has no such entry {decision.sequence}",
            code="argument.decision",
            todo="pass the output of the task that promoted, unchanged",
        )
    if found == state.current and not state.is_applied(found):
        apply_decision(lake, client, found, actor=actor, as_of=as_of)
    return found


def judge_decision(
    lake: Lake, model: ModelVersion, alias: str, decision: PromotionDecision
) -> tuple[Outcome, str, dict[str, Any]]:
    """Whether a decision makes this version the champion, and still does: outcome, why not, and details."""
    details = {
        "sequence": decision.sequence,
        "outcome": decision.outcome.value,
        "entry": decision.record_id,
    }
    if decision.outcome not in CHAMPION_MAKING:
        return Outcome.FAILED, f"{decision.outcome.value}: {decision.reason}", details
    target = (decision.model, decision.alias, decision.to_version, decision.to_created_at_ms)
    if target != (model.name, alias, model.version, model.created_at_ms):
        about = f"{decision.model} v{decision.to_version} as {decision.alias}"
        return Outcome.FAILED, f"the decision is about {about}", details
    later = _later(lake, model, alias, decision.sequence)
    return (Outcome.FAILED if later else Outcome.PASSED), later, details


def overtaken(lake: Lake, model: ModelVersion, alias: str, decided: DeploymentStep | None) -> str:
    """What the ledger says since a step has decided, if it is something else; else nothing."""
    if decided is None or decided.outcome is not Outcome.PASSED:
        return ""
    return _later(lake, model, alias, int(decided.details.get("sequence", 0)))


def standing(lake: Lake, model: ModelVersion, alias: str) -> PromotionDecision | None:
    """The entry that makes this version the champion; None: another one is."""
    now = ledger.current(lake, model.name, alias)
    if now is None or (now.to_version, now.to_created_at_ms) != (model.version, model.created_at_ms):
        return None
    return now


def undo(
    lake: Lake,
    client: RegistryClient,
    model: ModelVersion,
    deployment: Deployment,
    message: str,
    *,
    roll_back: bool,
    actor: Actor,
    as_of: datetime,
) -> str:
    """Roll the version's entry back, if it stands and that was asked for; says what became of it.

    :returns: one line; empty: the version is not the champion.
    """
    mine = Actor(
        producer=actor.producer,
        # Of the deployment, whoever ends it: the task that began it, its next try, a person.
        idempotency_key=f"rollback of deployment {deployment.record_id}",
        fence=actor.fence,
    )
    state = ledger.state(lake, model.name, deployment.alias)
    # Decided by a try that was killed: MLflow may not know of it yet.
    again = next(state.by_key(mine.idempotency_key, PromotionOutcome.ROLLED_BACK), None)
    now = standing(lake, model, deployment.alias)
    if now is None and again is None:
        return ""
    previous = deployment.previous
    if previous is None or not roll_back:
        entry = now.sequence if now is not None else 0
        why = "as asked" if previous is not None else "there is no former champion to go back to"
        log.warning("Ledger entry %d stays (%s): a person decides.", entry, why)
        return f"entry {entry} stays, {why}"
    back = functools.partial(
        rollback, lake, client, model_name=model.name, alias=deployment.alias, to_version=previous.version,
        reason=f"deployment {deployment.record_id[:12]} failed: {message}",
        expected_sequence=None if now is None else now.sequence, evidence=(deployment.record_id,),
        actor=mine, as_of=as_of,
    )  # fmt: skip
    try:
        result = back()
    except XOpsError as error:
        if error.retryable:
            raise
        if error.code != "model.load_failed":
            entry = now.sequence if now is not None else 0
            log.error("Ledger entry %d stays, a person decides: %s", entry, error)
            return f"entry {entry} stays, the former champion was refused ({error.code})"
        # This process lacks the model's libraries; at the target it has answered until a moment ago.
        result = back(verify=False)
    made = result.decision.sequence if result.decision else 0
    return f"rolled back to v{result.to_version} by entry {made}"


def _later(lake: Lake, model: ModelVersion, alias: str, sequence: int) -> str:
    now = ledger.current(lake, model.name, alias)
    if now is not None and now.sequence == sequence:
        return ""
    if now is None:
        return "superseded: the alias was retired"
    return f"superseded: entry {now.sequence} made v{now.to_version} champion"
