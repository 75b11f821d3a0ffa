"""Telling MLflow what the ledger has decided: the alias, a tag, and the ledger's ``applied`` entry.

For promotion, rollback and reconciliation; nothing else writes aliases.
"""

from __future__ import annotations

import functools
import json
import logging
from datetime import datetime

from airflow_provider_xops.errors import RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, PromotionDecision, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import Draft, LedgerState

__all__ = ["DECISION_TAG", "apply_decision"]

log = logging.getLogger(__name__)

DECISION_TAG = "xops.decision"
_ROUNDS = 16


def apply_decision(
    lake: Lake, client: RegistryClient, decision: PromotionDecision, *, actor: Actor, as_of: datetime
) -> bool:
    """Set the alias to what the ledger says and record that it was done.

    The ledger is read before and after: if another decision has come in between, the alias is set to *that*
    one, so a slow attempt cannot leave an old champion behind.

    :returns: whether ``decision`` is what the alias follows now (False: a newer one is).
    :raises NotFoundError: the version was deleted from MLflow meanwhile.
    """
    name, alias = decision.model, decision.alias
    now = ledger.state(lake, name, alias)
    overtaken = False
    for _ in range(_ROUNDS):
        target = now.current
        if target is None or target.to_version is None:
            return False
        if now.is_applied(target) and not overtaken:
            return target.sequence == decision.sequence
        _set_alias(client, target)
        entry, _written = ledger.append(
            lake, name, alias, functools.partial(_applied, target), actor=actor, as_of=as_of
        )
        if entry.outcome is PromotionOutcome.APPLIED:
            return target.sequence == decision.sequence
        # A newer decision came in, and may have set the alias before we did: it must be set once more.
        overtaken = True
        now = ledger.state(lake, name, alias)
    raise RegistryError(
        f"alias {alias} of model {name} cannot follow the ledger",
        code="registry.alias_race",
        retryable=True,
        why="new decisions kept coming in",
        todo="run the task again, or `xops reconcile`",
    )


def _applied(wanted: PromotionDecision, read: LedgerState) -> Draft | PromotionDecision:
    """The entry that says ``wanted`` was applied; the newer decision if there is one; the entry if it is
    there."""
    if read.current is not None and read.current.sequence != wanted.sequence:
        return read.current
    for entry in read.entries:
        if entry.outcome is PromotionOutcome.APPLIED and entry.decides == wanted.sequence:
            return entry
    return Draft(
        outcome=PromotionOutcome.APPLIED,
        reason=f"alias {wanted.alias} set to v{wanted.to_version}",
        expected=wanted.expected,
        from_version=wanted.from_version,
        to_version=wanted.to_version,
        to_created_at_ms=wanted.to_created_at_ms,
        artifact_digest=wanted.artifact_digest,
        evidence=(wanted.record_id,),
        decides=wanted.sequence,
    )


def _set_alias(client: RegistryClient, decision: PromotionDecision) -> None:
    version = str(decision.to_version)
    with client.session(f"setting alias {decision.alias} of model {decision.model} to v{version}") as mlflow:
        mlflow.set_registered_model_alias(decision.model, decision.alias, version)
        mlflow.set_model_version_tag(decision.model, version, DECISION_TAG, _tag(decision))
    log.info("Alias %s of model %s is v%s now.", decision.alias, decision.model, version)


def _tag(decision: PromotionDecision) -> str:
    """For readers of MLflow's page, and outside the lake: the hash that the ledger's chain must still
    contain."""
    said = {
        "alias": decision.alias,
        "sequence": decision.sequence,
        "outcome": str(decision.outcome),
        "entry_hash": decision.entry_hash,
        "by": decision.produced_by.id,
        "at": decision.recorded_at.isoformat(),
    }
    return json.dumps(said, sort_keys=True)
