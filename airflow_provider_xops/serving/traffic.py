"""How the requests of an alias are shared among versions: written by one, followed by every server.

For deployments, for people who start a canary or a shadow, and for the servers that follow. A split is a
record in the lake's evidence under a number of its own, 1, 2, 3, ... of each model and alias; a number is
written once, so of two writers that saw the same split one wins and the other one hears of it.

What it does not do: it makes nobody champion. A split shares requests between the champion and versions that
are tried out beside it; who is champion is decided in the ledger, with gates.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import datetime

from airflow_provider_xops.errors import ArgumentError, ConflictError, NotFoundError, RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, TrafficSplit, Variant, VariantRole, digest_of
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger_state import LedgerState
from airflow_provider_xops.registry.loading import get_model
from airflow_provider_xops.serving.plan import ANSWERING, basis_of, stands_for

__all__ = ["check_variants", "get_split", "last_split", "split_traffic"]

log = logging.getLogger(__name__)

# Shares are given as decimal fractions, which do not add up to 1 exactly.
SUM_WITHIN = 1e-9
# How far back a repeated piece of work that names no expected split looks for its own one.
LOOK_BACK = 20


def split_traffic(
    lake: Lake,
    *,
    model: str,
    alias: str,
    variants: Sequence[Variant],
    rollout: bool = False,
    deployment: str | None = None,
    reason: str,
    expected: int | None,
    actor: Actor,
    as_of: datetime,
) -> TrafficSplit:
    """Share the requests of an alias anew. The same work with the same content again is the same split.

    :param variants: the versions and their parts: one primary, any canaries (their shares and the primary's
        sum up to 1), any shadows and standbys. The primary is the champion; in a rollout it may also be a
        former one.
    :param rollout: a candidate is being brought in: the split stays in force when that candidate is promoted.
    :param deployment: record id of the deployment that asks for it.
    :param reason: why; it stands in the record.
    :param expected: number of the split that this one was decided on, 0: there was none; None: whatever is
        there now.
    :returns: the split; when it was written before, as it was written then (a newer one may have replaced
        it).
    :raises ArgumentError: ``argument.weights``, ``argument.variants``, ``argument.reason``,
        ``argument.expected`` (no such split).
    :raises NotFoundError: ``not_found.model_record``: the lake does not know a version.
    :raises RegistryError: ``registry.blocked``: a version that was rolled back from is to answer requests.
    :raises ConflictError: ``conflict.traffic``: another split was written since ``expected``.

    >>> split_traffic(lake, model="late", alias="champion", reason="ten percent of the requests", expected=0,
    ...               variants=[primary, canary], actor=actor, as_of=now).sequence  # doctest: +SKIP
    1

    What it does not do: it tells no server. Those that follow the alias read it at their next look.
    """
    chosen = check_variants(variants)
    if not reason.strip():
        raise ArgumentError(
            "a traffic split needs a reason", code="argument.reason", todo="say why, in a sentence"
        )
    state = ledger.state(lake, model, alias)
    last = last_split(lake, model, alias)
    seen = last.sequence if last else 0
    earlier = _earlier(lake, model, alias, expected, seen)
    for split in earlier:
        if _is_same(split, chosen, rollout, deployment, actor):
            log.info(
                "This work has shared the traffic of %s/%s before: split %d.", model, alias, split.sequence
            )
            return split
    if expected is not None and expected != seen:
        if expected > seen or expected < 0:
            raise ArgumentError(
                f"{model}/{alias} has no traffic split {expected}", code="argument.expected",
                todo=f"the last one is {seen}" if seen else "there is none yet: pass 0",
            )  # fmt: skip
        raise _lost(model, alias, expected, seen)
    _check_against(lake, state, chosen, rollout)
    split = TrafficSplit(
        recorded_at=as_of, produced_by=actor.producer, model=model, alias=alias, sequence=seen + 1,
        variants=chosen, basis=basis_of(state), rollout=rollout, reason=reason.strip(),
        idempotency_key=actor.idempotency_key, deployment=deployment,
    )  # fmt: skip
    if not lake.evidence.put(split, quiet=True):
        winner = get_split(lake, model, alias, split.sequence)
        if winner is None or not _is_same(winner, chosen, rollout, deployment, actor):
            raise _lost(model, alias, seen, split.sequence)
        return winner
    log.info(
        "Traffic of %s/%s, split %d: %s (%s).", model, alias, split.sequence, _shown(split), split.reason
    )
    return split


def last_split(
    lake: Lake, model: str, alias: str, *, known: TrafficSplit | None = None
) -> TrafficSplit | None:
    """The split with the highest number; None if there is none. Costs one look where nothing changed.

    :param known: the last one that was seen; without it the end is searched, in a few looks.
    """
    if known is None:
        return _search(lake, model, alias)
    while (newer := get_split(lake, model, alias, known.sequence + 1)) is not None:
        known = newer
    return known


def get_split(lake: Lake, model: str, alias: str, sequence: int) -> TrafficSplit | None:
    """The split of a number; None if there is none."""
    # The record's id is made of these alone.
    record_id = digest_of([TrafficSplit.kind, model, alias, sequence])[:32]
    try:
        found = lake.evidence.get(TrafficSplit.kind, record_id)
    except NotFoundError:
        return None
    return found if isinstance(found, TrafficSplit) else None


def check_variants(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """The variants, if they share all requests among different versions.

    Standbys alone are the one exception, for an alias without a champion: a version that is loaded before it
    becomes the first one.

    :raises ArgumentError: ``argument.variants`` (a version twice, or not exactly one primary),
        ``argument.weights`` (shares that are no share, or do not sum up to 1).
    """
    chosen = tuple(variants)
    versions = [each.version for each in chosen]
    if len(set(versions)) < len(versions):
        raise ArgumentError(
            "a version has two parts in one traffic split", code="argument.variants",
            why=f"named are {', '.join(f'v{each}' for each in versions)}",
            todo="name each version once",
        )  # fmt: skip
    primaries = sum(each.role is VariantRole.PRIMARY for each in chosen)
    waiting = all(each.role is VariantRole.STANDBY for each in chosen)
    if primaries != 1 and not waiting:
        raise ArgumentError(
            f"a traffic split has one primary version, not {primaries}", code="argument.variants",
            todo="make the champion the primary, and what is tried out a canary or a shadow",
        )  # fmt: skip
    for each in chosen:
        idle = each.role is VariantRole.STANDBY
        if not math.isfinite(each.weight) or not 0 <= each.weight <= 1 or (idle and each.weight != 0):
            raise ArgumentError(
                f"v{each.version} cannot have the share {each.weight} as {each.role}",
                code="argument.weights",
                why="a standby answers nothing" if idle else "a share is a number from 0 to 1",
                todo="give 0" if idle else "for example 0.1 for every tenth request",
            )  # fmt: skip
    total = math.fsum(each.weight for each in chosen if each.role in ANSWERING)
    if abs(total - 1) > SUM_WITHIN and not waiting:
        raise ArgumentError(
            f"the shares of the requests sum up to {total:g}", code="argument.weights",
            why="the primary and the canaries answer every request between them",
            todo="make their shares sum up to 1",
        )  # fmt: skip
    return chosen


def _earlier(lake: Lake, model: str, alias: str, expected: int | None, seen: int) -> list[TrafficSplit]:
    """The splits among which a repetition of the same work would find its own, newest first."""
    if expected is not None:
        numbers = [expected + 1] if 0 <= expected < seen else []
    else:
        numbers = list(range(seen, max(0, seen - LOOK_BACK), -1))
    found = (get_split(lake, model, alias, number) for number in numbers)
    return [split for split in found if split is not None]


def _is_same(
    split: TrafficSplit, variants: tuple[Variant, ...], rollout: bool, deployment: str | None, actor: Actor
) -> bool:
    mine = (actor.idempotency_key, variants, rollout, deployment)
    return (split.idempotency_key, split.variants, split.rollout, split.deployment) == mine


def _check_against(lake: Lake, state: LedgerState, variants: tuple[Variant, ...], rollout: bool) -> None:
    """Refuse versions that are unknown to the lake, blocked, or would be champion without gates."""
    now = state.current
    if now is not None and not any(each.role is VariantRole.PRIMARY for each in variants):
        raise ArgumentError(
            f"nobody would answer the requests of {state.model}/{state.alias}", code="argument.variants",
            why=f"the champion is v{now.to_version}", todo="make it the primary",
        )  # fmt: skip
    for each in variants:
        blocked = {(each.version, each.created_at_ms), (each.version, None)} & state.blocked
        if each.role in ANSWERING and each.weight > 0 and blocked:
            raise RegistryError(
                f"v{each.version} of {state.model} is blocked", code="registry.blocked",
                why="it was rolled back from before",
                todo=f"release it by name first: `xops release {state.model} {each.version}`",
            )  # fmt: skip
        was_champion = any(stands_for(entry, each) for entry in state.championships)
        may_lead = now is None or stands_for(now, each) or (rollout and was_champion)
        if each.role is VariantRole.PRIMARY and not may_lead:
            raise ArgumentError(
                f"v{each.version} cannot be the primary of {state.model}/{state.alias}",
                code="argument.variants", why=f"the champion is v{state.current_version}",
                todo="promote it first, or make it a canary or a shadow",
            )  # fmt: skip
        if not was_champion:
            get_model(lake, state.model, each.version, created_at_ms=each.created_at_ms)


def _search(lake: Lake, model: str, alias: str) -> TrafficSplit | None:
    """The last split, by doubling and halving: numbers have no gaps."""
    found, step = None, 1
    while (split := get_split(lake, model, alias, step)) is not None:
        found, step = split, step * 2
    if found is None:
        return None
    low, high = found.sequence, step
    while high - low > 1:
        middle = (low + high) // 2
        split = get_split(lake, model, alias, middle)
        if split is None:
            high = middle
        else:
            found, low = split, middle
    # Another one may have been written meanwhile.
    return last_split(lake, model, alias, known=found)


def _lost(model: str, alias: str, expected: int, seen: int) -> ConflictError:
    return ConflictError(
        f"the traffic of {model}/{alias} was shared anew by somebody else", code="conflict.traffic",
        why=f"decided on split {expected or 'none'}, the last one is {seen}",
        todo="look at the new split and decide again", context={"expected": expected, "last": seen},
    )  # fmt: skip


def _shown(split: TrafficSplit) -> str:
    return ", ".join(f"v{each.version} {each.role} {each.weight:g}" for each in split.variants)
