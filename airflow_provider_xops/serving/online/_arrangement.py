"""Who answers at one moment: loaded versions, their shares, and the choice among them.

Private to :mod:`airflow_provider_xops.serving.online.fleet`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_xops.records import Variant, VariantRole
from airflow_provider_xops.serving.online.routing import Router
from airflow_provider_xops.serving.online.variants import LoadedModel
from airflow_provider_xops.serving.plan import ServingPlan

__all__ = ["Arrangement", "Identity", "Slot", "identity_of", "shared", "shown"]

#: a version's number, and when it was made: a re-created model counts from 1 again
Identity = tuple[int, int]


@dataclass(eq=False)
class Slot:
    """A loaded version, and how many requests have it."""

    identity: Identity
    loaded: LoadedModel | None
    users: int = 0
    kept: bool = True


@dataclass(frozen=True)
class Arrangement:
    """Who answers at one moment; never changed, only exchanged."""

    digest: str = ""
    champion: int | None = None
    split: int | None = None
    answering: tuple[tuple[Slot, Variant], ...] = ()
    shadows: tuple[tuple[Slot, Variant], ...] = ()
    by_version: dict[int, tuple[Slot, Variant]] = field(default_factory=dict)
    router: Router | None = None

    @classmethod
    def of(
        cls,
        plan: ServingPlan,
        answering: tuple[Variant, ...],
        loaded: Mapping[Identity, Slot],
        rng: random.Random,
    ) -> Arrangement:
        """The arrangement of a plan, with those who answer as :func:`shared` says."""
        parts = {identity_of(each): each for each in plan.wanted} | {
            identity_of(each): each for each in answering
        }
        shadows = tuple(each for each in plan.shadows if identity_of(each) in loaded)
        whole = all(identity_of(each) in loaded for each in plan.wanted)
        return cls(
            digest=plan.digest if whole else "",
            champion=plan.champion.sequence if plan.champion else None,
            split=plan.split.sequence if plan.split else None,
            answering=tuple((loaded[identity_of(each)], each) for each in answering),
            shadows=tuple((loaded[identity_of(each)], each) for each in shadows),
            # Of two with one number (a model made again) the one that answers comes first.
            by_version={
                key[0]: (loaded[key], each) for key, each in reversed(parts.items()) if key in loaded
            },
            router=Router(plan.model, plan.alias, answering, shadows, rng=rng) if answering else None,
        )

    @property
    def parts(self) -> tuple[Any, ...]:
        """Who answers with which share, and who is asked beside: what a request can tell."""
        return (
            tuple((slot.identity, each.weight) for slot, each in self.answering),
            tuple((slot.identity, each.weight) for slot, each in self.shadows),
        )

    def choose(self, key: str | None) -> tuple[Slot, Variant]:
        """Who answers a request with this key."""
        if len(self.answering) == 1:
            return self.answering[0]
        assert self.router is not None
        return self.answering[self.router.choose(key)]

    def shadows_for(self, key: str | None) -> tuple[LoadedModel, ...]:
        """Who is asked beside."""
        assert self.router is not None
        chosen = (self.shadows[place][0].loaded for place in self.router.shadows(key))
        return tuple(each for each in chosen if each is not None)


def shared(plan: ServingPlan, loaded: Mapping[Identity, Slot]) -> tuple[Variant, ...] | None:
    """The answering variants that are loaded, the share of missing canaries with the primary.

    None: the primary version is missing where it is needed.
    """
    if not plan.variants:
        return ()
    there = [each for each in plan.answering if identity_of(each) in loaded]
    missing = [each for each in plan.answering if identity_of(each) not in loaded]
    if not missing:
        return tuple(there)
    primary = next(each for each in plan.variants if each.role is VariantRole.PRIMARY)
    if identity_of(primary) not in loaded:
        return None
    weight = primary.weight + sum(each.weight for each in missing)
    return (
        dataclasses.replace(primary, weight=min(weight, 1.0)),
        *(each for each in there if each.role is not VariantRole.PRIMARY),
    )


def identity_of(variant: Variant) -> Identity:
    """What tells a variant's version from every other."""
    return variant.version, variant.created_at_ms


def shown(
    now: Arrangement, plan: ServingPlan | None, slots: Sequence[Slot], leaving: Sequence[Slot]
) -> dict[str, Any]:
    """What is wanted, what is served and what is loaded, as plain JSON."""
    roles = {slot.identity: str(variant.role) for slot, variant in now.by_version.values()}
    wanted = plan and {
        "champion": plan.champion.sequence if plan.champion else None,
        "split": plan.split.sequence if plan.split else None,
        "variants": [_part(each) for each in plan.wanted],
    }
    return {
        "wanted": wanted,
        "serving": {
            "champion": now.champion,
            "split": now.split,
            "variants": [_part(variant) for _, variant in now.by_version.values()],
        },
        "loaded": [
            {
                "version": each.version,
                "created_at_ms": slot.identity[1],
                "role": roles.get(slot.identity),
                "session": each.session.record_id,
                "loaded_at": each.loaded_at.isoformat(),
                "load_seconds": round(each.load_seconds, 3),
                "golden_rows": each.golden.rows,
                "requests": slot.users,
            }
            for slot in slots
            if (each := slot.loaded) is not None
        ],
        "leaving": [{"version": slot.identity[0], "requests": slot.users} for slot in leaving],
    }


def _part(variant: Variant) -> dict[str, Any]:
    return {"version": variant.version, "role": str(variant.role), "weight": variant.weight}
