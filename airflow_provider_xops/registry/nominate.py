"""Aliases that answer nobody: giving one to a version without gates, and taking one away.

For the operators and the command line. A nominee (``challenger``, ``shadow``) is loaded beside the champion,
asked and compared, and its answers reach nobody. That is why no gate is asked, and why a nomination is
refused for an alias that has ever been promoted to. Nominations and retirements are ledger entries like any
other, applied to MLflow like any other.

What it does not do: a nomination promises nothing; the way to an alias that answers is promotion.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_xops.errors import ArgumentError, ConflictError, RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ModelVersion, PromotionDecision, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry._against_mlflow import alias_of, check_version, moved_by_hand
from airflow_provider_xops.registry.aliases import CHALLENGER, check_alias, is_gated
from airflow_provider_xops.registry.apply import apply_decision
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import Draft, LedgerState
from airflow_provider_xops.registry.recorded import recorded

__all__ = ["NominationResult", "expire_nominations", "is_expired", "nominate", "retire"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NominationResult:
    """The entry, whether MLflow's alias follows it, and whether it had been written before (``reused``)."""

    decision: PromotionDecision
    applied: bool
    reused: bool


def nominate(
    lake: Lake,
    client: RegistryClient,
    *,
    model: ModelVersion,
    alias: str = CHALLENGER,
    reason: str,
    expires_at: datetime | None = None,
    actor: Actor,
    as_of: datetime,
) -> NominationResult:
    """Give ``alias`` to a version, at once and without gates.

    :param model: a version that the evidence knows.
    :param alias: one that answers nobody: ``challenger``, ``shadow`` or any other name that was never
        promoted to and does not begin with ``champion``.
    :param reason: why; it stands in the ledger.
    :param expires_at: until when; ``reconcile`` retires it afterwards. None: until another entry ends it.
    :returns: the same entry when the same work asks again.
    :raises ArgumentError: ``argument.alias``, ``argument.reason``, ``argument.expires_at``;
        ``argument.model``: the evidence does not know the version.
    :raises RegistryError: ``registry.gated_alias``; ``registry.alias_moved``: somebody moved the alias by
        hand; ``registry.model_recreated``.
    :raises NotFoundError: MLflow does not have the version.

    >>> nominate(lake, client, model=model, reason="to be compared", actor=me, as_of=now)  # doctest: +SKIP

    What it does not do: it starts no shadow traffic; a traffic split or a server's settings do.
    """
    check_alias(alias)
    _check_reason(reason, "a nomination")
    model = recorded(lake, model, argument="model")
    check_version(client, model.name, model.version, model.created_at_ms)
    _check_gates(ledger.state(lake, model.name, alias))
    pointed = client.alias_target(model.name, alias)

    def decide(now: LedgerState) -> Draft | PromotionDecision:
        for entry in now.by_key(actor.idempotency_key, PromotionOutcome.NOMINATED):
            if (entry.to_version, entry.to_created_at_ms) == (model.version, model.created_at_ms):
                return entry
        if expires_at is not None and (expires_at.tzinfo is None or expires_at <= as_of):
            raise ArgumentError(
                "the nomination would never count",
                code="argument.expires_at",
                why="its end has no time zone" if expires_at.tzinfo is None else "it ends before it begins",
                todo="give a moment in the future, with its time zone",
            )
        _check_gates(now)
        _check_hand(client, now, pointed)
        return Draft(
            outcome=PromotionOutcome.NOMINATED,
            reason=reason.strip(),
            expected=now.current_version,
            from_version=now.current_version,
            to_version=model.version,
            to_created_at_ms=model.created_at_ms,
            artifact_digest=model.artifact_digest,
            evidence=(model.record_id,),
            expires_at=expires_at,
        )

    decision, written = ledger.append(lake, model.name, alias, decide, actor=actor, as_of=as_of)
    applied = apply_decision(lake, client, decision, checked=True, actor=actor, as_of=as_of)
    return NominationResult(decision=decision, applied=applied, reused=not written)


def retire(
    lake: Lake,
    client: RegistryClient,
    *,
    model_name: str,
    alias: str,
    reason: str,
    expected_sequence: int | None = None,
    actor: Actor,
    as_of: datetime,
) -> NominationResult:
    """Take ``alias`` away: it stands for nothing afterwards, in the ledger and in MLflow.

    It may be a champion's too (a region is closed, a model goes out of service): whoever serves that alias
    has nothing to answer with then. An alias that somebody set by hand is taken away as well.

    :param reason: why; it stands in the ledger.
    :param expected_sequence: the ledger entry that the alias is thought to rest on; None: whatever it is.
    :returns: the same entry when the same work asks again, and where it was retired already and only MLflow
        has not been told.
    :raises ArgumentError: ``argument.alias``, ``argument.reason``.
    :raises RegistryError: ``registry.no_alias``: it stands for nothing already.
    :raises ConflictError: ``conflict.standing``: it does not rest on the expected entry any more.

    What it does not do: it deletes no version, and blocks none; :func:`~.rollback.rollback` does that.
    """
    check_alias(alias)
    _check_reason(reason, "retiring an alias")
    pointed = alias_of(client, model_name, alias)

    def decide(now: LedgerState) -> Draft | PromotionDecision:
        last = now.standing
        if last is not None and last.outcome is PromotionOutcome.RETIRED:
            # One that MLflow has not been told of is finished, whoever began it.
            if last.idempotency_key == actor.idempotency_key or not now.is_applied(last):
                return last
            if pointed is None:
                raise _no_alias(model_name, alias)
        for entry in now.by_key(actor.idempotency_key, PromotionOutcome.RETIRED):
            if expected_sequence is None or entry.sequence > expected_sequence:
                return entry
        if expected_sequence is not None and (last is None or last.sequence != expected_sequence):
            raise ConflictError(
                f"{model_name}/{alias} does not rest on entry {expected_sequence} any more",
                code="conflict.standing",
                retryable=False,
                todo="look at `xops history` before taking it away",
            )
        if last is None and pointed is None:
            raise _no_alias(model_name, alias)
        return Draft(
            outcome=PromotionOutcome.RETIRED,
            reason=reason.strip(),
            expected=now.current_version,
            from_version=now.current_version,
            evidence=(now.current.record_id,) if now.current else (),
        )

    decision, written = ledger.append(lake, model_name, alias, decide, actor=actor, as_of=as_of)
    applied = apply_decision(lake, client, decision, actor=actor, as_of=as_of)
    return NominationResult(decision=decision, applied=applied, reused=not written)


def expire_nominations(
    lake: Lake, client: RegistryClient, *, model_name: str | None = None, actor: Actor, as_of: datetime
) -> list[PromotionDecision]:
    """Retire the nominations whose time is over; of one model, or of all.

    One whose alias was moved by hand is left alone: ``reconcile`` reports it.

    :returns: the entries that retired them.
    """
    retired = []
    for name in [model_name] if model_name is not None else ledger.models(lake):
        for alias in ledger.aliases(lake, name):
            now = ledger.state(lake, name, alias)
            if not is_expired(now, as_of):
                continue
            target = alias_of(client, name, alias)
            if now.unapplied is None and target not in (None, now.current_version):
                log.warning("Alias %s of model %s was moved by hand; it is left where it is.", alias, name)
                continue
            done = retire_expired(lake, client, now, actor=actor, as_of=as_of)
            if done is not None:
                retired.append(done)
    return retired


def is_expired(now: LedgerState, as_of: datetime) -> bool:
    """Whether an alias stands for a nomination whose time is over."""
    decision = now.current
    return (
        decision is not None
        and decision.outcome is PromotionOutcome.NOMINATED
        and decision.expires_at is not None
        and decision.expires_at <= as_of
    )


def retire_expired(
    lake: Lake, client: RegistryClient, now: LedgerState, *, actor: Actor, as_of: datetime
) -> PromotionDecision | None:
    """Retire the nomination that an alias rests on; None if another entry came in between."""
    decision = now.current
    assert decision is not None
    assert decision.expires_at is not None
    try:
        return retire(
            lake,
            client,
            model_name=now.model,
            alias=now.alias,
            reason=f"expired: nominated until {decision.expires_at.isoformat()}",
            expected_sequence=decision.sequence,
            actor=actor,
            as_of=as_of,
        ).decision
    except ConflictError as error:
        if error.code != "conflict.standing":
            raise
        return None


def _check_reason(reason: str, doing: str) -> None:
    if not reason.strip():
        raise ArgumentError(
            f"{doing} needs a reason", code="argument.reason", todo="say why, in one sentence"
        )


def _check_gates(now: LedgerState) -> None:
    if is_gated(now.alias, now):
        raise RegistryError(
            f"nobody is nominated for alias {now.alias} of model {now.model}",
            code="registry.gated_alias",
            why="it was promoted to before" if now.championships else "it is a champion's by its name",
            todo="promote the version through its gates, or nominate it for another alias",
        )


def _check_hand(client: RegistryClient, now: LedgerState, pointed: int | None) -> None:
    target = moved_by_hand(client, now, pointed)
    if target is not None:
        raise RegistryError(
            f"alias {now.alias} of model {now.model} was moved by hand to v{target}",
            code="registry.alias_moved",
            why=f"the ledger says {f'v{now.current_version}' if now.current else 'nothing'}",
            todo=f"`xops retire {now.model} --alias {now.alias}` first, if nobody needs it there",
        )


def _no_alias(model: str, alias: str) -> RegistryError:
    return RegistryError(
        f"alias {alias} of model {model} stands for nothing",
        code="registry.no_alias",
        todo="look at `xops history` for what became of it",
    )
