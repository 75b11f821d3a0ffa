"""Who proposes the next trial, and who ends one early: Optuna's samplers and pruners, seeded trial by trial.

For :mod:`airflow_provider_xops.training.tuning.study`. A sampler is made anew for each trial, seeded by the
study's seed and the trial's slot. So workers that share a study do not propose the same values, and a study
that was killed and continued proposes what it would have proposed without the kill.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.training.splits import random_order

if TYPE_CHECKING:
    from airflow_provider_xops.training.tuning.space import Space

__all__ = ["PRUNERS", "SAMPLERS", "check_names", "grid_of", "optuna_module", "pruner_of", "sampler_of"]

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")
# Trials of which the median is known before one is pruned; Optuna's own number.
STARTUP_TRIALS = 5


def optuna_module() -> Any:
    """The optuna module.

    :raises ArgumentError: ``argument.extra_missing``.
    """
    try:
        import optuna
    except ImportError:
        raise ArgumentError(
            "tuning needs Optuna, which is not installed", code="argument.extra_missing",
            todo='pip install "airflow-provider-xops[tune]"',
        ) from None  # fmt: skip
    return optuna


def check_names(sampler: str, pruner: str) -> None:
    """:raises ArgumentError: ``argument.sampler`` or ``argument.pruner``: there is none of that name."""
    for what, name, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if name not in known:
            raise ArgumentError(
                f"there is no {what} {name!r}", code=f"argument.{what}", todo=f"use one of {', '.join(known)}"
            )


def sampler_of(name: str, *, seed: int, slot: int) -> Any:
    """The sampler of one trial.

    A grid's values are handed to the trial beforehand, so its sampler is never asked.

    Source: Bergstra et al. 2011 (TPE); running trials count as bad ones, so that workers keep apart.
    """
    from optuna.samplers import RandomSampler, TPESampler

    own = int.from_bytes(hashlib.sha256(f"{seed}/{slot}".encode()).digest()[:4], "little")
    return TPESampler(seed=own, constant_liar=True) if name == "tpe" else RandomSampler(seed=own)


def pruner_of(name: str, *, folds: int) -> Any:
    """The pruner of a study whose trials have ``folds`` steps; it compares means over the folds so far.

    ``median`` ends a trial that is worse than half of the others after the same number of folds, from the
    second fold on; ``hyperband`` is successive halving over the folds (Li et al. 2018).
    """
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name == "median":
        return MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1)
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=folds, reduction_factor=3)
    return NopPruner()


def grid_of(space: Space, *, seed: int) -> list[dict[str, Any]]:
    """Every combination of the space as Optuna's parameters, in an order fixed by the seed.

    :raises ArgumentError: ``argument.space``: it has no end, or is too large.
    """
    combinations = space.grid()
    return [space.words(combinations[position]) for position in random_order(len(combinations), seed)]
