"""Telling MLflow what the ledger has decided: the alias, a tag, and the ledger's ``applied`` entry.

For promotion, rollback, nomination and reconciliation; nothing else writes aliases.

MLflow's aliases have no compare-and-set, so an attempt that was slow may point an alias at what an older
entry said. It looks at the ledger once more afterwards and mends that, unless it is killed right in between.
Such a *late write* can be told from a hand: the entry was overtaken before anybody recorded it as applied,
and the version carries the tag that our attempts write just before the alias.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_xops.errors import NotFoundError, RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, PromotionDecision, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import Draft, LedgerState
from airflow_provider_xops.registry.ledger_state import MOVING
from airflow_provider_xops.registry.models import created_ms

__all__ = ["DECISION_TAG", "apply_decision", "close_overtaken", "late_write"]

log = logging.getLogger(__name__)

DECISION_TAG = "xops.decision"
_ROUNDS = 16
# No attempt lives so long between its tag and its alias: MLflow's client has given up before.
_SETTLED = timedelta(hours=1)


def apply_decision(
    lake: Lake,
    client: RegistryClient,
    decision: PromotionDecision,
    *,
    checked: bool = False,
    actor: Actor,
    as_of: datetime,
) -> bool:
    """Point the alias to what the ledger says and record that it was done.

    The ledger is read before and after: if another decision has come in between, the alias is pointed to
    *that* one, so a slow attempt cannot leave an old champion behind. Where an earlier, killed attempt at
    ``decision`` has done so, this one mends it.

    :param checked: the caller has just seen that MLflow has the very version that ``decision`` names.
    :returns: whether ``decision`` is what the alias follows now (False: a newer one is).
    :raises NotFoundError: the version was deleted from MLflow meanwhile.
    :raises RegistryError: ``registry.model_recreated``: another model has its number now.
    """
    name, alias = decision.model, decision.alias
    now = ledger.state(lake, name, alias)
    overtaken = False
    for _ in range(_ROUNDS):
        target = now.standing
        if target is None:
            return False
        if now.is_applied(target) and not overtaken:
            if target.sequence == decision.sequence:
                return True
            if now.is_applied(decision) or not _points_back(client, now, decision):
                return False
        if not (checked and target.sequence == decision.sequence):
            # It may have been decided long ago, or by others.
            _check_same(client, target)
        _set_alias(client, target)
        entry, _written = ledger.append(
            lake, name, alias, functools.partial(_applied, target), actor=actor, as_of=as_of
        )
        if entry.outcome is PromotionOutcome.APPLIED:
            if target.sequence != decision.sequence:
                _close_tag(client, decision, target)
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


def late_write(client: RegistryClient, now: LedgerState, target: int | None) -> PromotionDecision | None:
    """The overtaken entry whose unfinished attempt has pointed the alias to ``target``; None: it was a hand.

    :param target: where MLflow's alias points, which is not where the ledger says.

    What it does not do: it cannot tell an attempt that was killed between the tag and the alias from a person
    who then moves the alias to that very version.
    """
    for entry in reversed(now.entries):
        moved = entry.outcome in MOVING and entry.to_version == target
        if moved and not now.is_applied(entry) and entry != now.standing and _tagged(client, entry):
            return entry
    return None


def close_overtaken(client: RegistryClient, now: LedgerState, *, as_of: datetime) -> None:
    """Say of attempts that were killed before they set the alias that nothing of them comes any more.

    Otherwise whoever moves the alias there by hand, a year later, would be taken for one of them. It waits an
    hour from when what overtook them was applied.
    """
    standing = now.standing
    applied = next((each for each in now.entries if standing and each.decides == standing.sequence), None)
    if standing is None or applied is None or as_of - applied.recorded_at < _SETTLED:
        return
    for entry in now.entries:
        if entry.outcome in MOVING and entry != standing and not now.is_applied(entry):
            _close_tag(client, entry, standing)


def _points_back(client: RegistryClient, now: LedgerState, decision: PromotionDecision) -> bool:
    """Whether an attempt at ``decision``, which was overtaken, has left the alias behind."""
    try:
        target = client.alias_target(now.model, now.alias)
    except NotFoundError:
        return False
    return target != now.current_version and late_write(client, now, target) == decision


def _applied(wanted: PromotionDecision, read: LedgerState) -> Draft | PromotionDecision:
    """The entry that says ``wanted`` was applied; the newer decision if there is one; the entry if it is
    there."""
    if read.standing is not None and read.standing.sequence != wanted.sequence:
        return read.standing
    for entry in read.entries:
        if entry.outcome is PromotionOutcome.APPLIED and entry.decides == wanted.sequence:
            return entry
    retired = wanted.outcome is PromotionOutcome.RETIRED
    return Draft(
        outcome=PromotionOutcome.APPLIED,
        reason=f"alias {wanted.alias} removed"
        if retired
        else f"alias {wanted.alias} set to v{wanted.to_version}",
        expected=wanted.expected,
        from_version=wanted.from_version,
        to_version=wanted.to_version,
        to_created_at_ms=wanted.to_created_at_ms,
        artifact_digest=wanted.artifact_digest,
        evidence=(wanted.record_id,),
        decides=wanted.sequence,
    )


def _set_alias(client: RegistryClient, decision: PromotionDecision) -> None:
    """Tag first: an alias that one of our attempts has moved is always one whose version has the tag."""
    name, alias = decision.model, decision.alias
    if decision.outcome is PromotionOutcome.RETIRED:
        with (
            contextlib.suppress(NotFoundError),
            client.session(f"removing alias {alias} of model {name}") as mlflow,
        ):
            if decision.from_version is not None:
                with contextlib.suppress(Exception):  # the version may be gone, and the alias with it
                    _set_tag(mlflow, decision, _tag(decision))
            mlflow.delete_registered_model_alias(name, alias)
        log.info("Alias %s of model %s is removed.", alias, name)
        return
    version = str(decision.to_version)
    with client.session(f"tagging model {name} v{version}") as mlflow:
        _set_tag(mlflow, decision, _tag(decision))

    def point() -> None:
        with client.session(f"setting alias {alias} of model {name} to v{version}") as mlflow:
            mlflow.set_registered_model_alias(name, alias, version)

    try:
        point()
    except RegistryError as error:
        # Of two that make an alias at the same moment MLflow's database refuses one.
        if error.context.get("mlflow_code") != "BAD_REQUEST":
            raise
        point()
    log.info("Alias %s of model %s is v%s now.", alias, name, version)


def _check_same(client: RegistryClient, decision: PromotionDecision) -> None:
    """See that the number still is the version that was decided on."""
    if decision.to_version is None:
        return
    made = created_ms(client.get_version(decision.model, decision.to_version))
    if decision.to_created_at_ms not in (None, made):
        raise RegistryError(
            f"alias {decision.alias} of model {decision.model} was not set: v{decision.to_version} is another"
            " model now",
            code="registry.model_recreated",
            why=f"it was made at {made}, decided on was one made at {decision.to_created_at_ms}",
            todo=f"look at `xops history {decision.model}`; promote the version that is there, or go back to"
            " another one",
        )


def _tagged(client: RegistryClient, decision: PromotionDecision) -> bool:
    """Whether an attempt at this decision has come as far as MLflow, and nobody has looked after it since."""
    version = _tagged_version(decision)
    if version is None:
        return False
    try:
        said = json.loads(client.get_version(decision.model, version).tags.get(DECISION_TAG, "{}"))
    except (NotFoundError, ValueError):
        return False
    if not isinstance(said, dict) or "overtaken_by" in said:
        return False
    return bool(said.get("entry_hash") == decision.entry_hash)


def _close_tag(client: RegistryClient, decision: PromotionDecision, by: PromotionDecision) -> None:
    """Say in the version's tag that its decision was overtaken: from now on only a hand moves the alias
    there."""
    if _tagged_version(decision) in (None, _tagged_version(by)) or not _tagged(client, decision):
        return
    with (
        contextlib.suppress(NotFoundError),
        client.session(f"tagging model {decision.model} v{_tagged_version(decision)}") as mlflow,
    ):
        _set_tag(mlflow, decision, _tag(decision, overtaken_by=by.sequence))


def _set_tag(mlflow: Any, decision: PromotionDecision, text: str) -> None:
    mlflow.set_model_version_tag(decision.model, str(_tagged_version(decision)), DECISION_TAG, text)


def _tagged_version(decision: PromotionDecision) -> int | None:
    retired = decision.outcome is PromotionOutcome.RETIRED
    return decision.from_version if retired else decision.to_version


def _tag(decision: PromotionDecision, **more: int) -> str:
    """For readers of MLflow's page, and outside the lake: the hash that the ledger's chain must still
    contain."""
    said = {
        "alias": decision.alias,
        "sequence": decision.sequence,
        "outcome": str(decision.outcome),
        "entry_hash": decision.entry_hash,
        "by": decision.produced_by.id,
        "at": decision.recorded_at.isoformat(),
        **more,
    }
    return json.dumps(said, sort_keys=True)
