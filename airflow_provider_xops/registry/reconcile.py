"""Comparing the ledger with MLflow: what was decided is applied, what was moved by hand is reported.

For ``xops reconcile``. An alias that differs from an *applied* decision was moved by somebody, perhaps in an
emergency: it becomes an incident and is never moved back by itself. So does an alias of which the ledger
knows nothing. An incident is opened once; when what it was about has mended itself, or was mended, the next
run says so and closes it with a record of its own.

Three things are done without asking, because they finish what was decided: an unapplied entry is applied, a
late write of a killed attempt is overwritten (see :mod:`~airflow_provider_xops.registry.apply`), and a
nomination whose time is over is retired.

What it does not do: it looks at aliases and at the versions that they stand for, not at the files of models;
``xops rollback``, scoring and serving prove those before they load them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, Incident, PromotionDecision, PromotionOutcome, Severity
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry._against_mlflow import alias_of
from airflow_provider_xops.registry._incidents import Incidents
from airflow_provider_xops.registry.aliases import alias_option, is_gated
from airflow_provider_xops.registry.apply import apply_decision, close_overtaken, late_write
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import LedgerState
from airflow_provider_xops.registry.models import created_ms
from airflow_provider_xops.registry.nominate import is_expired, retire_expired

__all__ = ["Finding", "FindingStatus", "reconcile"]

log = logging.getLogger(__name__)

# How often one alias is looked at again because others decide meanwhile.
_ROUNDS = 16


class FindingStatus(StrEnum):
    """How an alias stands to its ledger."""

    CONSISTENT = "consistent"
    APPLIED = "applied"
    EXPIRED = "expired"
    UNAPPLIED = "unapplied"
    NO_CHAMPION = "no_champion"
    LEDGER_MISMATCH = "ledger_mismatch"
    UNKNOWN_ALIAS = "unknown_alias"
    CHAMPION_DELETED = "champion_deleted"
    MODEL_RECREATED = "model_recreated"
    CHAIN_BROKEN = "chain_broken"


_KINDS = frozenset(str(status) for status in FindingStatus)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What reconciling one alias of one model found, and did.

    :param incident: what a person must look at; the same record until it is mended.
    :param mended: ids of the incidents about this alias that are over now.
    """

    model: str
    alias: str
    status: FindingStatus
    message: str
    decision: PromotionDecision | None = None
    incident: Incident | None = None
    mended: tuple[str, ...] = ()

    @property
    def in_order(self) -> bool:
        """Whether ledger and MLflow agree now, and nobody need look."""
        fine = (FindingStatus.CONSISTENT, FindingStatus.APPLIED, FindingStatus.EXPIRED)
        gone = self.status is FindingStatus.NO_CHAMPION and bool(self.mended)
        return self.status in fine or gone


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

    :param alias: one alias; None means every alias in the model's ledger, every one that MLflow has, and
        every one that an incident is open about.
    :param dry_run: find, but apply nothing, retire nothing and write no incident.
    :returns: one finding for each alias; incidents are also evidence of the lake.
    :raises NotFoundError: ``not_found.model``: neither the ledger nor MLflow knows the model.
    :raises UnavailableError: MLflow or the storage did not answer.

    >>> reconcile(lake, client, model_name="late", actor=me, as_of=now)  # doctest: +SKIP
    """
    case = _Case(lake, client, model_name, actor, as_of, dry_run)
    incidents = Incidents(lake)
    names = [alias] if alias else _names(lake, client, incidents, model_name)
    found = []
    for name in names:
        finding = case.look_at(name)
        if finding.incident is not None:
            finding = replace(finding, incident=incidents.opened(finding.incident, dry_run=dry_run))
        elif finding.status is not FindingStatus.UNAPPLIED:
            finding = _closed(incidents, finding, actor, as_of, dry_run)
        log.info("%s/%s: %s (%s).", finding.model, finding.alias, finding.status, finding.message)
        found.append(finding)
    return found


@dataclass(frozen=True)
class _Case:
    """One run over one model."""

    lake: Lake
    client: RegistryClient
    model: str
    actor: Actor
    as_of: datetime
    dry_run: bool

    def look_at(self, alias: str) -> Finding:
        """What is to be said of one alias; again, if somebody decided while it was looked at."""
        problems = ledger.verify_chain(self.lake, self.model, alias)
        if problems:
            return self._incident(
                FindingStatus.CHAIN_BROKEN,
                alias,
                (f"chain:{len(problems)}:{problems[0]}",),
                message=f"the ledger was tampered with: {'; '.join(problems[:5])}",
                next_step="compare with the ledger table's earlier versions, restore the one before it",
            )
        now = ledger.state(self.lake, self.model, alias)
        for _ in range(_ROUNDS):
            finding = self._look_at(now, alias)
            # A decision is written before its alias is set: what looks moved by hand may be a newer one.
            read = ledger.state(self.lake, self.model, alias) if finding.incident is not None else now
            if read.standing == now.standing:
                break
            now = read
        return finding

    def _look_at(self, now: LedgerState, alias: str) -> Finding:
        decision = now.standing
        target = alias_of(self.client, self.model, alias)
        if decision is None:
            return self._nothing_decided(now, target)
        if is_expired(now, self.as_of) and (
            now.unapplied is not None or target in (None, now.current_version)
        ):
            return self._expired(now, decision)
        missing = self._missing(now, decision)
        if missing is not None:
            return missing
        if now.unapplied is not None:
            return self._applied(
                decision, f"entry {decision.sequence} is decided, MLflow does not know it yet"
            )
        if target == now.current_version:
            if not self.dry_run:
                close_overtaken(self.client, now, as_of=self.as_of)
            text = f"{_v(target)} since entry {decision.sequence}"
            return self._finding(FindingStatus.CONSISTENT, alias, text, decision)
        late = late_write(self.client, now, target)
        if late is not None:
            why = f"a killed attempt at entry {late.sequence} has left the alias at {_v(target)}"
            return self._applied(late, why, now=decision)
        return self._incident(
            FindingStatus.LEDGER_MISMATCH,
            alias,
            (decision.record_id, f"alias:{_v(target)}"),
            decision,
            message=f"the ledger says {_v(now.current_version)}, MLflow's alias says {_v(target)}",
            next_step=self._ways_out(now, target),
        )

    def _nothing_decided(self, now: LedgerState, target: int | None) -> Finding:
        if target is None:
            return self._finding(FindingStatus.NO_CHAMPION, now.alias, "nothing was promoted yet", None)
        gated = is_gated(now.alias, now)
        return self._incident(
            FindingStatus.UNKNOWN_ALIAS,
            now.alias,
            (f"alias:{_v(target)}",),
            message=f"MLflow's alias says {_v(target)}, the ledger knows of no decision",
            next_step=f"`xops adopt model {self.model} --version {target} --alias {now.alias}` if it is right"
            if gated
            else f"`xops retire {self.model} --alias {now.alias}`, then nominate the version, if it is ours;"
            " else leave it to whoever set it",
            severity=Severity.CRITICAL if gated else Severity.WARNING,
        )

    def _expired(self, now: LedgerState, decision: PromotionDecision) -> Finding:
        said = f"v{decision.to_version} was nominated until {decision.expires_at:%F %T %Z}"
        if self.dry_run:
            return self._finding(FindingStatus.UNAPPLIED, now.alias, f"{said}: to be retired", decision)
        done = retire_expired(self.lake, self.client, now, actor=self.actor, as_of=self.as_of)
        if done is None:
            return self._finding(
                FindingStatus.APPLIED, now.alias, f"{said}: decided anew meanwhile", decision
            )
        return self._finding(FindingStatus.EXPIRED, now.alias, f"{said}: retired now", done)

    def _missing(self, now: LedgerState, decision: PromotionDecision) -> Finding | None:
        """The finding where MLflow does not have the version that the alias stands for."""
        if decision.outcome is PromotionOutcome.RETIRED:
            return None
        nominee = decision.outcome is PromotionOutcome.NOMINATED
        role = "nominee" if nominee else "champion"
        severity = Severity.WARNING if nominee else Severity.CRITICAL
        retire = f"`xops retire {now.model} --alias {now.alias}`"
        try:
            entity = self.client.get_version(decision.model, decision.to_version or 0)
        except NotFoundError:
            return self._incident(
                FindingStatus.CHAMPION_DELETED,
                now.alias,
                (decision.record_id,),
                decision,
                message=f"{role} v{decision.to_version} was deleted from MLflow, and its aliases with it",
                next_step=f"{retire}, or nominate another version"
                if nominee
                else f"`xops rollback {now.model}{alias_option(now.alias)}` goes back to the one before it;"
                f" where there is none, {retire} and promote another",
                severity=severity,
            )
        if decision.to_created_at_ms in (None, created_ms(entity)):
            return None
        return self._incident(
            FindingStatus.MODEL_RECREATED,
            now.alias,
            (decision.record_id, f"made:{created_ms(entity)}"),
            decision,
            message=f"v{decision.to_version} in MLflow is not the {role}:"
            " the model was deleted and made again",
            next_step="train and register the model again, or adopt the version that is there and promote it;"
            f" where the {role}'s files are gone too, {retire} first",
            severity=severity,
        )

    def _applied(
        self, decision: PromotionDecision, why: str, *, now: PromotionDecision | None = None
    ) -> Finding:
        """Apply an entry, or what overtook it (``now``)."""
        follows = now or decision
        if self.dry_run:
            return self._finding(FindingStatus.UNAPPLIED, decision.alias, why, follows)
        apply_decision(self.lake, self.client, decision, actor=self.actor, as_of=self.as_of)
        retired = follows.outcome is PromotionOutcome.RETIRED
        points = "nothing" if retired else f"v{follows.to_version}"
        text = f"the alias follows entry {follows.sequence} now: {points}" + (f" ({why})" if now else "")
        return self._finding(FindingStatus.APPLIED, decision.alias, text, follows)

    def _ways_out(self, now: LedgerState, target: int | None) -> str:
        if now.current is None or now.current.outcome is PromotionOutcome.NOMINATED:
            return (
                f"find out who set it and why; `xops retire {self.model} --alias {now.alias}` takes it away"
            )
        return (
            "find out who moved it and why;"
            f" `xops rollback {self.model} --to N{alias_option(now.alias)}` makes both agree on"
            f" v{now.current_version}" + (f" or v{target}" if target is not None else "")
        )

    def _finding(
        self, status: FindingStatus, alias: str, message: str, decision: PromotionDecision | None
    ) -> Finding:
        return Finding(model=self.model, alias=alias, status=status, message=message, decision=decision)

    def _incident(
        self,
        status: FindingStatus,
        alias: str,
        evidence: tuple[str, ...],
        decision: PromotionDecision | None = None,
        *,
        message: str,
        next_step: str,
        severity: Severity = Severity.CRITICAL,
    ) -> Finding:
        incident = Incident(
            recorded_at=self.as_of,
            produced_by=self.actor.producer,
            incident=str(status),
            subject=_subject(self.model, alias),
            severity=severity,
            message=message,
            evidence=evidence,
            next_step=next_step,
        )
        return replace(self._finding(status, alias, message, decision), incident=incident)


def _closed(incidents: Incidents, finding: Finding, actor: Actor, as_of: datetime, dry_run: bool) -> Finding:
    """The finding, and that the incidents about its alias are over, if there are any."""
    over = incidents.open_about(_subject(finding.model, finding.alias), _KINDS)
    if not over:
        return finding
    for incident in over:
        incidents.close(incident, finding.message, actor=actor, as_of=as_of, dry_run=dry_run)
    said = ", ".join(f"{each.incident} of {each.recorded_at:%F %T}" for each in over)
    return replace(
        finding,
        message=f"{finding.message}; over: {said}",
        mended=tuple(each.record_id for each in over),
    )


def _names(lake: Lake, client: RegistryClient, incidents: Incidents, model: str) -> list[str]:
    """Every alias that there is something to say of."""
    decided = ledger.aliases(lake, model)
    about = _subject(model, "")
    # Of an alias that is gone from MLflow, and never was in the ledger, only its incident is left to close.
    troubled = {each.removeprefix(about) for each in incidents.subjects(about, _KINDS)}
    try:
        return sorted({*decided, *client.aliases(model), *troubled})
    except NotFoundError:
        # A misspelled name must not pass for a model in good order.
        if not decided and not troubled:
            raise
        return sorted({*decided, *troubled})


def _subject(model: str, alias: str) -> str:
    return f"model:{model}/{alias}"


def _v(version: int | None) -> str:
    return "nothing" if version is None else f"v{version}"
