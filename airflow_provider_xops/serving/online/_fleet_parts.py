"""What a fleet hands out: leases, and what came of applying a plan.

Private to :mod:`airflow_provider_xops.serving.online.fleet`, which gives them to everybody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from airflow_provider_xops.records import Variant
from airflow_provider_xops.serving.online._arrangement import Slot
from airflow_provider_xops.serving.online.variants import LoadedModel

__all__ = ["Applied", "Lease", "LoadFailure", "LoadFunction"]


class LoadFunction(Protocol):
    """What brings a variant of a model into memory; a :class:`.variants.Loader`."""

    def __call__(self, model: str, variant: Variant, /) -> LoadedModel: ...


@dataclass(frozen=True, kw_only=True)
class LoadFailure:
    """A version that could not be loaded: with which code, why (no data), how often, and when it is tried
    again."""

    version: int
    code: str
    message: str
    attempts: int
    next_at: datetime

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**dataclasses.asdict(self), "next_at": self.next_at.isoformat()}


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What applying a plan did.

    :param swapped: requests are answered by another arrangement than before.
    :param whole: the plan is served as it stands; else ``failed`` says what is missing.
    :param loaded: and ``unloaded``: version numbers.
    """

    swapped: bool
    whole: bool
    loaded: tuple[int, ...] = ()
    unloaded: tuple[int, ...] = ()
    failed: tuple[LoadFailure, ...] = ()
    seconds: float = 0.0


class Lease:
    """One request's hold on the version that answers it; a context manager.

    :ivar loaded: the version. :ivar variant: its part, with the share it has just now.
    :ivar shadows: the versions to ask beside it, with nobody waiting for them.
    """

    __slots__ = ("_release", "_slot", "loaded", "shadows", "variant")

    def __init__(
        self,
        loaded: LoadedModel,
        variant: Variant,
        shadows: tuple[LoadedModel, ...],
        slot: Slot,
        release: Callable[[Slot], None],
    ) -> None:
        self.loaded = loaded
        self.variant = variant
        self.shadows = shadows
        self._slot: Slot | None = slot
        self._release = release

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Give the version back; a second time does nothing."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._release(slot)
