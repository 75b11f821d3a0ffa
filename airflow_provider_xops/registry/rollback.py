"""Going back to a former champion, and releasing a version that was rolled back from.

For the rollback operator, the reference DAG ``xops_rollback`` and the command line. A rollback is a decision
in the ledger like any other; the version that is left is blocked from promotion until somebody releases it by
name.

Before anything is decided the target's files are downloaded, proved by their digest and loaded: a way back
that leads to a broken model is found while the old one still answers. In an emergency that can be left out;
the ledger says so then.

What it does not do: it moves no traffic and unloads nothing. Servers follow the ledger, which wins over any
traffic split.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_xops.errors import ArgumentError, ModelError, NotFoundError, RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ModelVersion, PromotionDecision, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.aliases import alias_option
from airflow_provider_xops.registry.apply import apply_decision
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import Draft, LedgerState
from airflow_provider_xops.registry.loading import get_model, load_model
from airflow_provider_xops.registry.models import created_ms, known_version

__all__ = ["RollbackResult", "release", "rollback"]

log = logging.getLogger(__name__)

UNVERIFIED = " (unverified: the files were not looked at)"


@dataclass(frozen=True, kw_only=True)
class RollbackResult:
    """What a rollback did, or with ``dry_run`` would do (``decision`` is None then).

    :param verified: whether the target was loaded before the decision; None: it was decided before.
    """

    decision: PromotionDecision | None
    from_version: int | None
    to_version: int
    applied: bool
    reused: bool
    dry_run: bool
    verified: bool | None = None


def rollback(
    lake: Lake,
    client: RegistryClient,
    *,
    model_name: str,
    alias: str = "champion",
    to_version: int | None = None,
    reason: str,
    verify: bool = True,
    expected_sequence: int | None = None,
    evidence: tuple[str, ...] = (),
    actor: Actor,
    as_of: datetime,
    dry_run: bool = False,
) -> RollbackResult:
    """Make a former champion the champion again, at once, without gates.

    :param to_version: a version that was champion before, or the one that somebody moved the alias to by
        hand; None is the champion before the present one that is not blocked and still exists.
    :param reason: why; it stands in the ledger.
    :param verify: download the target's files, prove their digest and load them before anything is decided;
        False is for an emergency, and the ledger's reason says *unverified*.
    :param expected_sequence: the ledger entry that made the champion that is to be left; None: whatever it
        is. What was promoted since is not undone by a check of what was there before.
    :param evidence: ids of the records that are the cause, such as a failed check.
    :param dry_run: say what would be done and change nothing; the target is verified all the same.
    :returns: the same decision when the same work asks again.
    :raises ArgumentError: no reason given (``argument.reason``).
    :raises RegistryError: ``registry.no_champion``, ``registry.nothing_to_roll_back_to``,
        ``registry.never_champion``, ``registry.blocked``, ``registry.model_recreated``,
        ``registry.not_standing`` (the alias does not rest on the expected entry any more).
    :raises ModelError: the target's files are not those that were registered, or do not load here
        (``model.digest_mismatch``, ``model.load_failed``, ``model.untrusted``); nothing was changed.
    :raises NotFoundError: the version is not in MLflow any more, or the lake has no record of it.
    :raises UnavailableError: MLflow or a storage did not answer.

    >>> rollback(lake, client, model_name="late", reason="too slow", actor=me, as_of=now)  # doctest: +SKIP
    """
    if not reason.strip():
        raise ArgumentError(
            "a rollback needs a reason", code="argument.reason", todo="say why, in one sentence"
        )
    now = ledger.state(lake, model_name, alias)
    earlier = _same_rollback(now, to_version, actor)
    if earlier is not None:
        return _result(
            earlier, applied=apply_decision(lake, client, earlier, actor=actor, as_of=as_of), reused=True
        )
    _check_standing(now, expected_sequence)
    target, created_at_ms, digest = _target(lake, client, now, to_version)
    if verify:
        _verify(lake, client, now, target, created_at_ms, digest)
    if dry_run:
        log.info("Would roll %s/%s back from v%s to v%d.", model_name, alias, now.current_version, target)
        return RollbackResult(
            decision=None,
            from_version=now.current_version,
            to_version=target,
            applied=False,
            reused=False,
            dry_run=True,
            verified=verify,
        )
    left = now.current

    def decide(read: LedgerState) -> Draft | PromotionDecision:
        again = _same_rollback(read, to_version, actor)
        if again is not None:
            return again
        _check_standing(read, expected_sequence)
        if read.current != left:
            raise RegistryError(
                f"the champion of {model_name}/{alias} changed while rolling back",
                code="registry.champion_changed",
                why=f"it was v{left.to_version if left else None}, now it is v{read.current_version}",
                todo="look at the new champion first; whoever then rolls back leaves that one",
            )
        return Draft(
            outcome=PromotionOutcome.ROLLED_BACK,
            reason=reason.strip() + ("" if verify else UNVERIFIED),
            expected=read.current_version,
            from_version=read.current_version,
            to_version=target,
            to_created_at_ms=created_at_ms,
            artifact_digest=digest,
            evidence=(*((left.record_id,) if left else ()), *evidence),
        )

    decision, written = ledger.append(lake, model_name, alias, decide, actor=actor, as_of=as_of)
    applied = apply_decision(lake, client, decision, checked=written, actor=actor, as_of=as_of)
    return _result(decision, applied=applied, reused=not written, verified=verify if written else None)


def release(
    lake: Lake,
    *,
    model_name: str,
    version: int,
    alias: str = "champion",
    reason: str,
    actor: Actor,
    as_of: datetime,
) -> PromotionDecision:
    """Let a version that was rolled back from be promoted again.

    :raises ArgumentError: no reason given.
    :raises RegistryError: ``registry.not_blocked``.
    """
    if not reason.strip():
        raise ArgumentError(
            "a release needs a reason", code="argument.reason", todo="say why, in one sentence"
        )

    def decide(now: LedgerState) -> Draft | PromotionDecision:
        for entry in now.by_key(actor.idempotency_key, PromotionOutcome.RELEASED):
            if entry.to_version == version:
                return entry
        blocked = [created for number, created in now.blocked if number == version]
        if not blocked:
            raise RegistryError(
                f"v{version} of {model_name} is not blocked",
                code="registry.not_blocked",
                todo=f"blocked are {sorted(number for number, _ in now.blocked) or 'none'}",
            )
        return Draft(
            outcome=PromotionOutcome.RELEASED,
            reason=reason.strip(),
            expected=now.current_version,
            from_version=now.current_version,
            to_version=version,
            # Of several that had this number in turn only the newest can still be there.
            to_created_at_ms=max(blocked, key=lambda created: created or 0),
        )

    entry, _written = ledger.append(lake, model_name, alias, decide, actor=actor, as_of=as_of)
    return entry


def _result(
    decision: PromotionDecision, *, applied: bool, reused: bool, verified: bool | None = None
) -> RollbackResult:
    if decision.to_version is None:
        raise RegistryError(f"ledger entry {decision.sequence} names no version", code="registry.no_target")
    return RollbackResult(
        decision=decision,
        from_version=decision.from_version,
        to_version=decision.to_version,
        applied=applied,
        reused=reused,
        dry_run=False,
        verified=verified,
    )


def _check_standing(now: LedgerState, expected_sequence: int | None) -> None:
    standing = now.standing.sequence if now.standing else None
    if expected_sequence is not None and standing != expected_sequence:
        raise RegistryError(
            f"{now.model}/{now.alias} does not rest on entry {expected_sequence} any more",
            code="registry.not_standing",
            why=f"it rests on entry {standing}" if standing else "nothing was decided yet",
            todo="look at `xops history`; what was decided since needs a look of its own",
        )


def _verify(
    lake: Lake,
    client: RegistryClient,
    now: LedgerState,
    version: int,
    created_at_ms: int | None,
    digest: str | None,
) -> None:
    """Prove the target's files and load them; the error says that nothing was rolled back."""
    name = now.model
    try:
        record = get_model(lake, name, version, created_at_ms=created_at_ms)
        if digest is not None and record.artifact_digest != digest:
            # Recorded twice, with other files: the ledger knows which of them were champion.
            record = _of_digest(lake, name, version, created_at_ms or record.created_at_ms, digest)
        load_model(client, lake, record)
    except (ModelError, NotFoundError) as error:
        raise type(error)(
            f"{name} was not rolled back to v{version}: {error.what}",
            code=error.code,
            why=error.why,
            todo=f"name another former champion (`xops rollback {name} --to N{alias_option(now.alias)}`);"
            " in an emergency, and knowing what is there, `--unverified`",
            context=error.context,
        ) from None
    log.info("Model %s v%d is what was registered, and loads.", name, version)


def _of_digest(lake: Lake, name: str, version: int, created_at_ms: int, digest: str) -> ModelVersion:
    record = known_version(lake, name=name, version=version, created_at_ms=created_at_ms, digest=digest)
    if record is None:
        raise NotFoundError(
            f"the lake has no evidence of model {name} v{version} with the files that were champion",
            code="not_found.model_record",
        )
    return record


def _same_rollback(now: LedgerState, to_version: int | None, actor: Actor) -> PromotionDecision | None:
    """The rollback that this piece of work has decided before: it is finished, not done twice."""
    for entry in now.by_key(actor.idempotency_key, PromotionOutcome.ROLLED_BACK):
        if to_version in (None, entry.to_version):
            log.info("This work has rolled back before: entry %d.", entry.sequence)
            return entry
    return None


def _target(
    lake: Lake, client: RegistryClient, now: LedgerState, to_version: int | None
) -> tuple[int, int | None, str | None]:
    """The version to go back to, when it was made, and its digest."""
    if to_version is None:
        if now.current is None:
            raise RegistryError(
                f"{now.model}/{now.alias} has no champion in the ledger",
                code="registry.no_champion",
                todo="promote or adopt a version first",
            )
        return _previous(client, now)
    former = next((entry for entry in reversed(now.championships) if entry.to_version == to_version), None)
    if former is not None:
        _check_blocked(now, to_version, former.to_created_at_ms)
        if not _is_there(client, former):
            raise RegistryError(
                f"v{to_version} of {now.model} in MLflow is not the one that was champion",
                code="registry.model_recreated",
                why="the version or the model was deleted, perhaps made again under the same name",
                todo="name another former champion, or train again",
            )
        return to_version, former.to_created_at_ms, former.artifact_digest
    # A nominee that the ledger itself has put there was moved by nobody's hand.
    if to_version == now.current_version or client.alias_target(now.model, now.alias) != to_version:
        raise RegistryError(
            f"v{to_version} of {now.model} was never {now.alias}",
            code="registry.never_champion",
            why="a rollback has no gates, so it goes only where the alias has been",
            todo=f"promote it, or name one of {sorted({each.to_version or 0 for each in now.championships})}",
        )
    # Somebody moved the alias there by hand: the ledger accepts it, if the lake knows the version.
    made = created_ms(client.get_version(now.model, to_version))
    _check_blocked(now, to_version, made)
    record = get_model(lake, now.model, to_version, created_at_ms=made)
    return to_version, made, record.artifact_digest


def _check_blocked(now: LedgerState, version: int, created_at_ms: int | None) -> None:
    if (version, created_at_ms) in now.blocked:
        raise RegistryError(
            f"v{version} of {now.model} is blocked",
            code="registry.blocked",
            why="it was rolled back from before",
            todo="release it by name first:"
            f" `xops release {now.model} {version}{alias_option(now.alias)} --reason ...`",
        )


def _previous(client: RegistryClient, now: LedgerState) -> tuple[int, int | None, str | None]:
    tried = []
    for entry in reversed(now.championships):
        if entry.to_version is None or entry.to_version == now.current_version:
            continue
        tried.append(f"v{entry.to_version}")
        if (entry.to_version, entry.to_created_at_ms) not in now.blocked and _is_there(client, entry):
            return entry.to_version, entry.to_created_at_ms, entry.artifact_digest
    raise RegistryError(
        f"there is no former champion of {now.model}/{now.alias} to go back to",
        code="registry.nothing_to_roll_back_to",
        why=f"{', '.join(tried)}: blocked or deleted" if tried else "the present champion is the first one",
        todo="train and promote another version, or release a blocked one by name",
    )


def _is_there(client: RegistryClient, entry: PromotionDecision) -> bool:
    """Whether MLflow still has the very version that an entry names."""
    try:
        entity = client.get_version(entry.model, entry.to_version or 0)
    except NotFoundError:
        return False
    return entry.to_created_at_ms in (None, created_ms(entity))
