"""Comparing the ledger with MLflow: what was decided is applied, what was moved by hand is reported.

For ``xops reconcile`` and the maintenance DAG. An alias that differs from an *applied* decision was moved by
somebody, perhaps in an emergency: it becomes an incident and is never moved back by itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, Incident, PromotionDecision, Severity
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.apply import apply_decision
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import LedgerState
from airflow_provider_xops.registry.models import created_ms

__all__ = ["Finding", "FindingStatus", "reconcile"]

log = logging.getLogger(__name__)


class FindingStatus(StrEnum):
    """How an alias stands to its ledger."""

    CONSISTENT = "consistent"
    APPLIED = "applied"
    UNAPPLIED = "unapplied"
    NO_CHAMPION = "no_champion"
    LEDGER_MISMATCH = "ledger_mismatch"
    CHAMPION_DELETED = "champion_deleted"
    MODEL_RECREATED = "model_recreated"
    CHAIN_BROKEN = "chain_broken"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What reconciling one alias of one model found, and did."""

    model: str
    alias: str
    status: FindingStatus
    message: str
    decision: PromotionDecision | None = None
    incident: Incident | None = None


def reconcile(
    lake: Lake,
    client: RegistryClient,
    *,
    model_name: str,
    alias: str | None = None,
    actor: Actor,
    as_of: datetime,
    dry_run: bool = False,
) -> list[Finding]:
    """Bring MLflow's aliases to what the ledger decided, and report what a person must look at.

    :param alias: one alias; None means every alias in the model's ledger.
    :param dry_run: find, but apply nothing and write no incident.
    :returns: one finding for each alias; incidents are also evidence of the lake.
    """
    names = [alias] if alias else sorted({entry.alias for entry in ledger.entries(lake, model_name)})
    found = [_reconcile(lake, client, model_name, name, actor, as_of, dry_run) for name in names]
    for finding in found:
        log.info("%s/%s: %s (%s).", finding.model, finding.alias, finding.status, finding.message)
        if finding.incident is not None and not dry_run:
            lake.evidence.put(finding.incident)
    return found


def _reconcile(
    lake: Lake, client: RegistryClient, model: str, alias: str, actor: Actor, as_of: datetime, dry_run: bool
) -> Finding:
    problems = ledger.verify_chain(lake, model, alias)
    if problems:
        return _incident(
            FindingStatus.CHAIN_BROKEN,
            model,
            alias,
            None,
            (f"chain:{len(problems)}:{problems[0]}",),
            actor,
            as_of,
            message=f"the ledger was tampered with: {'; '.join(problems[:5])}",
            next_step="compare with the ledger table's earlier versions, restore the one before the change",
        )
    now = ledger.state(lake, model, alias)
    decision = now.current
    if decision is None:
        return Finding(
            model=model, alias=alias, status=FindingStatus.NO_CHAMPION, message="nothing was promoted yet"
        )
    missing = _champion_missing(client, now, decision, actor, as_of)
    if missing is not None:
        return missing
    if now.unapplied is not None:
        if dry_run:
            text = f"entry {decision.sequence} is decided, MLflow does not know it yet"
            return Finding(
                model=model, alias=alias, status=FindingStatus.UNAPPLIED, message=text, decision=decision
            )
        apply_decision(lake, client, decision, actor=actor, as_of=as_of)
        text = f"the alias follows entry {decision.sequence} now: v{decision.to_version}"
        return Finding(
            model=model, alias=alias, status=FindingStatus.APPLIED, message=text, decision=decision
        )
    target = client.alias_target(model, alias)
    if target == decision.to_version:
        text = f"v{target} since entry {decision.sequence}"
        return Finding(
            model=model, alias=alias, status=FindingStatus.CONSISTENT, message=text, decision=decision
        )
    points = f"v{target}" if target is not None else "nothing"
    return _incident(
        FindingStatus.LEDGER_MISMATCH,
        model,
        alias,
        decision,
        (decision.record_id, f"alias:{points}"),
        actor,
        as_of,
        message=f"the ledger says v{decision.to_version}, MLflow's alias says {points}",
        next_step="find out who moved it and why;"
        f" `xops rollback {model} --to N` makes both agree on v{decision.to_version}"
        + (f" or v{target}" if target is not None else ""),
    )


def _champion_missing(
    client: RegistryClient, now: LedgerState, decision: PromotionDecision, actor: Actor, as_of: datetime
) -> Finding | None:
    try:
        entity = client.get_version(decision.model, decision.to_version or 0)
    except NotFoundError:
        return _incident(
            FindingStatus.CHAMPION_DELETED,
            now.model,
            now.alias,
            decision,
            (decision.record_id,),
            actor,
            as_of,
            message=f"champion v{decision.to_version} was deleted from MLflow, and its aliases with it",
            next_step=f"`xops rollback {now.model}` goes back to the champion before it",
        )
    if decision.to_created_at_ms in (None, created_ms(entity)):
        return None
    return _incident(
        FindingStatus.MODEL_RECREATED,
        now.model,
        now.alias,
        decision,
        (decision.record_id, f"made:{created_ms(entity)}"),
        actor,
        as_of,
        message=f"v{decision.to_version} in MLflow is not the champion: the model was deleted and made again",
        next_step="train and register the model again, or adopt the version that is there, and promote it",
    )


def _incident(
    status: FindingStatus,
    model: str,
    alias: str,
    decision: PromotionDecision | None,
    evidence: tuple[str, ...],
    actor: Actor,
    as_of: datetime,
    *,
    message: str,
    next_step: str,
) -> Finding:
    incident = Incident(
        recorded_at=as_of,
        produced_by=actor.producer,
        incident=str(status),
        subject=f"model:{model}/{alias}",
        severity=Severity.CRITICAL,
        message=message,
        evidence=evidence,
        next_step=next_step,
    )
    return Finding(
        model=model, alias=alias, status=status, message=message, decision=decision, incident=incident
    )
