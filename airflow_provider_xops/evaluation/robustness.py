"""How a model degrades when its input gets worse: noise, gaps, typing errors, a world that has shifted.

For :func:`airflow_provider_xops.evaluation.evaluate.evaluate` and the robustness gate. Each perturbation at
each level is one point of a degradation curve, measured on holdout rows with the challenger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.errors import ArgumentError, ModelError
from airflow_provider_xops.evaluation._losses import Loss, Study, answers_to, study_of
from airflow_provider_xops.evaluation.plan import RobustnessPlan
from airflow_provider_xops.evaluation.scored import Scored
from airflow_provider_xops.records import RobustnessFigure

__all__ = ["curves", "perturbed"]

log = logging.getLogger(__name__)

SHARES = frozenset({"missing", "typos"})


def curves(
    scored: Scored, plan: RobustnessPlan, *, metric: str, seed: int = 0, confidence: float = 0.95
) -> tuple[RobustnessFigure, ...]:
    """The metric at each level of each perturbation, level 0 (the rows as they are) first.

    ``noise``: to every number a normal error of ``level`` standard deviations of its column. ``missing``: so
    large a share of the filled cells is emptied. ``typos``: in so large a share of the text cells two letters
    change places, one is lost, doubled, or in the other case. ``shift``: every number of a column moves by
    ``level`` standard deviations, all rows alike, each column up or down by chance, and then the other way
    (so an odd number of repeats is one more). Flags (booleans and numbers of two values) have no noise and no
    shift. Of a share above 0, one cell of a column at least is disturbed.

    A perturbation that none of the features can have is left out, and so is a level above 1 of one that is
    measured in shares.

    :param metric: one of the task's :data:`~airflow_provider_xops.training.metrics.METRICS`.
    :returns: ``loss`` is positive where the metric is worse; ``lower`` and ``upper`` are the ends of *its*
        interval, over rows and what chance did to each of them (not over the directions of a shift). With
        ``plan.features`` each of them is disturbed alone and named in ``feature``, else all of the model's
        features are disturbed together. Where the model raises on the disturbed rows (gaps in the input of a
        model without an imputer), ``value`` and ``loss`` are None.
    :raises ArgumentError: ``argument.metric``, ``argument.robustness``.

    >>> curves(scored, RobustnessPlan(levels=(0.1, 0.2)), metric="roc_auc")  # doctest: +SKIP

    What it does not do: it disturbs columns independently of each other, not as they go wrong together, and
    it looks for no worst case.
    """
    _check(plan, scored)
    study = study_of(scored, metric=metric, max_rows=plan.max_rows, seed=seed, confidence=confidence)
    groups: list[tuple[str, tuple[str, ...]]]
    groups = [(name, (name,)) for name in dict.fromkeys(plan.features)] or [
        ("", tuple(map(str, study.frame.columns)))
    ]
    found: list[RobustnessFigure] = []
    for feature, columns in groups:
        for kind in dict.fromkeys(plan.perturbations):
            applies = _applies(kind, study.frame, columns)
            if not applies:
                continue
            found.append(_figure(study, kind, 0.0, _unchanged(study), feature))
            for level in sorted(set(plan.levels)):
                if kind in SHARES and level > 1:
                    continue
                # Each point has draws of its own: what is asked beside it does not change it.
                rng = np.random.default_rng([seed, *map(ord, f"{kind}:{level:g}:{feature}")])
                loss = _measured(study, scored, kind, level, applies, plan.repeats, rng)
                found.append(_figure(study, kind, level, loss, feature))
    log.info("Measured %d points of robustness on %d rows.", len(found), len(study.truth))
    return tuple(found)


def perturbed(
    frame: pd.DataFrame, kind: str, level: float, columns: Sequence[str], rng: Any, *, turns: Any = None
) -> pd.DataFrame:
    """A copy of the frame with some columns disturbed.

    :param turns: for ``shift``: 1 or -1 for each column, whether it moves up or down; None: all up.

    >>> rows = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})
    >>> int(perturbed(rows, "missing", 0.5, ["x"], np.random.default_rng(0))["x"].isna().sum())
    2
    """
    made = frame.copy()
    for column in columns:
        turn = 1.0 if turns is None else turns[column]
        made[column] = _KINDS[kind](frame[column], level, rng, turn)
    return made


def _measured(
    study: Study, scored: Scored, kind: str, level: float, columns: Sequence[str], repeats: int, rng: Any
) -> Loss:
    # Directions by chance, then turned round: no direction is favored, for pairs are always whole.
    count = repeats + repeats % 2 if kind == "shift" else repeats
    pairs = [{column: rng.choice([-1.0, 1.0]) for column in columns} for _ in range(0, count, 2)]

    def make(repeat: int) -> pd.DataFrame:
        turns = {column: turn * (-1.0) ** repeat for column, turn in pairs[repeat // 2].items()}
        return perturbed(study.frame, kind, level, columns, rng, turns=turns)

    try:
        return study.against(answers_to(study, scored.challenger, make, count))
    except ModelError as error:
        if error.code != "model.predict_failed":
            raise
        model = scored.challenger.model.ref
        log.warning("%s does not predict rows with %s at %g: %s", model, kind, level, error.why)
        return Loss(None, None)


def _unchanged(study: Study) -> Loss:
    known = study.baseline is not None
    return Loss(study.baseline, *((0.0, 0.0, 0.0) if known else (None, None, None)))


def _figure(study: Study, kind: str, level: float, loss: Loss, feature: str) -> RobustnessFigure:
    return RobustnessFigure(
        perturbation=kind, level=level, metric=study.metric, value=loss.value, baseline=study.baseline,
        loss=loss.loss, lower=loss.lower, upper=loss.upper, feature=feature,
    )  # fmt: skip


def _applies(kind: str, frame: pd.DataFrame, columns: Sequence[str]) -> tuple[str, ...]:
    # What has no value cannot lose one, and a column without words has no typing errors: undisturbed, it
    # would count as robust.
    if kind == "missing":
        return tuple(name for name in columns if frame[name].notna().any())
    if kind == "typos":
        return tuple(name for name in columns if frame[name].dtype == object and _words(frame[name]).any())
    return tuple(name for name in columns if frame[name].dtype.kind == "f" and frame[name].nunique() > 2)


def _noise(column: Any, level: float, rng: Any, turn: float) -> Any:
    return column + rng.normal(0.0, level * _spread(column), len(column))


def _shift(column: Any, level: float, rng: Any, turn: float) -> Any:
    return column + turn * level * _spread(column)


def _missing(column: Any, level: float, rng: Any, turn: float) -> Any:
    chosen = _some(np.flatnonzero(column.notna()), level, rng)
    made = column.copy()
    made.iloc[chosen] = pd.NaT if column.dtype.kind == "M" else np.nan
    return made


def _typos(column: Any, level: float, rng: Any, turn: float) -> Any:
    values = column.to_numpy(dtype=object).copy()
    chosen = _some(np.flatnonzero(_words(column)), level, rng)
    for place in chosen:
        values[place] = _mistyped(values[place], rng)
    return pd.Series(values, dtype=object)


def _words(column: Any) -> Any:
    """Where there is a letter to mistype: neither in a gap nor in empty text."""
    return np.array([isinstance(value, str) and bool(value) for value in column], dtype=bool)


_KINDS: dict[str, Callable[[Any, float, Any, float], Any]] = {
    "noise": _noise,
    "missing": _missing,
    "typos": _typos,
    "shift": _shift,
}


def _spread(column: Any) -> float:
    known = column.to_numpy(dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(known.std()) if len(known) else 0.0


def _some(places: Any, share: float, rng: Any) -> Any:
    count = round(share * len(places))
    # Rounded down to nothing, a disturbance would be one that the model withstands.
    return rng.choice(places, max(count, 1) if share > 0 and len(places) else count, replace=False)


def _mistyped(word: str, rng: Any) -> str:
    """The word with one typing error; never the same word."""
    place = int(rng.integers(len(word)))
    swap = word[:place] + word[place + 1 : place + 2] + word[place] + word[place + 2 :]
    options = [
        swap,
        word[:place] + word[place + 1 :],
        word[: place + 1] + word[place:],
        word[:place] + word[place].swapcase() + word[place + 1 :],
    ]
    # An emptied word is a gap, which is another perturbation.
    usable = [option for option in options if option not in (word, "")]
    return str(usable[int(rng.integers(len(usable)))])


def _check(plan: RobustnessPlan, scored: Scored) -> None:
    unknown = [name for name in plan.features if name not in scored.challenger.model.features]
    if unknown:
        raise _refused(f"the model has no feature {', '.join(unknown)}", "name features of the model")
    if min(plan.levels) > 1 and SHARES.issuperset(plan.perturbations):
        raise _refused(f"{min(plan.levels):g} is no share of cells", "give levels up to 1")


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.robustness", todo=todo)
