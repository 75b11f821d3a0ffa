"""Which version answers a request: the same one for the same key, in the shares that were asked for.

For the fleet. Each version draws a number for each key, from nothing but the key, the alias and the version;
the smallest draw, weighted by the version's share, wins (the race of exponential clocks of weighted
rendezvous hashing: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006). Two things
follow. Each version gets its share of the keys. And when one version's share grows at the cost of others, a
key that was on it stays on it: nobody is sent back and forth while a canary grows, whoever is called primary.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import Final

from airflow_provider_xops.records import Variant

__all__ = ["Router", "draw"]

_STEPS: Final = 2.0**53


class Router:
    """Chooses among the answering variants of one alias.

    :param model: and ``alias``: keys are drawn anew for each, so that no key is the guinea pig of them all.
    :param answering: the variants with a share of the requests; at least one.
    :param shadows: the variants to ask beside the one that answers.
    :param rng: chooses for requests without a key.

    >>> from airflow_provider_xops.records import VariantRole
    >>> old = Variant(version=1, created_at_ms=1, role=VariantRole.PRIMARY, weight=0.9)
    >>> new = Variant(version=2, created_at_ms=2, role=VariantRole.CANARY, weight=0.1)
    >>> router = Router("late", "champion", [old, new], rng=random.Random(7))
    >>> router.choose("customer 17") == router.choose("customer 17")
    True
    """

    def __init__(
        self,
        model: str,
        alias: str,
        answering: Sequence[Variant],
        shadows: Sequence[Variant] = (),
        *,
        rng: random.Random,
    ) -> None:
        self._salt = f"{model}\n{alias}\n"
        self._answering = tuple(answering)
        self._shadows = tuple(shadows)
        self._rng = rng
        total = math.fsum(each.weight for each in self._answering)
        running, bounds = 0.0, []
        for each in self._answering:
            running += each.weight / total
            bounds.append(running)
        self._bounds = bounds

    def choose(self, key: str | None) -> int:
        """The place, among the answering variants, of the one that answers this request.

        :param key: equal keys get the same version as long as the shares stay; None: any version.
        """
        if len(self._answering) == 1:
            return 0
        if key is None:
            point = self._rng.random()
            return next(
                (place for place, end in enumerate(self._bounds) if point < end), len(self._bounds) - 1
            )
        draws = [
            -math.log(draw(self._salt, each, key)) / each.weight if each.weight > 0 else math.inf
            for each in self._answering
        ]
        return draws.index(min(draws))

    def shadows(self, key: str | None) -> tuple[int, ...]:
        """The places of the shadows that are asked beside, each in its share of the keys or requests."""
        return tuple(
            place
            for place, each in enumerate(self._shadows)
            if each.weight >= 1.0
            or (self._rng.random() if key is None else draw(self._salt + "shadow\n", each, key)) < each.weight
        )


def draw(salt: str, variant: Variant, key: str) -> float:
    """A number above 0 and below 1 that this key, this version and this salt always give.

    >>> variant = Variant(version=1, created_at_ms=1, role="primary", weight=1.0)
    >>> round(draw("late/champion", variant, "customer 17"), 6)
    0.0
    """
    text = f"{salt}{variant.version}/{variant.created_at_ms}\n{key}"
    first = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 11
    return (first + 0.5) / _STEPS
