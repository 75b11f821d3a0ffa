"""Whether a model treats groups alike: its figures by group, and the largest gap with its interval.

For :func:`airflow_provider_xops.evaluation.evaluate.evaluate` and the fairness gate. Values by group, gaps
and ratios are fairlearn's (extra ``fairness``); the intervals are this package's own, because a largest gap
is never below zero and a resampled one alone would call every model unfair.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation import _group_draws as draws_of
from airflow_provider_xops.evaluation._extras import needs
from airflow_provider_xops.evaluation._groups import groups_of
from airflow_provider_xops.evaluation.plan import FairnessPlan
from airflow_provider_xops.evaluation.scored import Contender, Scored
from airflow_provider_xops.records import FairnessFigure, GroupFigure
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = ["CRITERIA", "measure"]

log = logging.getLogger(__name__)

# Every figure that is made here, and the definition of fairness it stands for.
CRITERIA: Mapping[str, str] = {
    "selection_rate": "demographic_parity",
    "true_positive_rate": "equal_opportunity",
    "false_positive_rate": "predictive_equality",
    "equalized_odds": "equalized_odds",
    "precision": "predictive_parity",
    "accuracy": "",
    "roc_auc": "",
    "mae": "",
    "mean_error": "",
}
SIGNED = frozenset({"mean_error"})


@dataclass(frozen=True)
class _Rate:
    """A figure that is a sum over a sum: of ``top`` over ``bottom``, one entry a row each.

    ``function`` is what fairlearn's frame computes it by, from ``truth`` and ``said``.
    """

    function: Callable[..., float]
    truth: Any
    said: Any
    top: Any
    bottom: Any
    share: bool = True


@dataclass(frozen=True)
class _Auc:
    """The area under the ROC curve of ``said`` (probabilities) for ``truth`` (0 or 1)."""

    function: Callable[..., float]
    truth: Any
    said: Any


@dataclass(frozen=True)
class _Measured:
    """One figure of one attribute, with the draws its interval was made from."""

    figure: FairnessFigure
    values: Any = field(default_factory=lambda: np.zeros(0))
    draws: Any = field(default_factory=lambda: np.zeros((0, 0)))


def measure(
    scored: Scored,
    plan: FairnessPlan,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
    champion: bool = False,
) -> tuple[FairnessFigure, ...]:
    """Each figure by group for each attribute, and the largest gap between two groups with its interval.

    Classification: ``selection_rate`` (demographic parity), ``true_positive_rate`` (equal opportunity),
    ``false_positive_rate`` (predictive equality), ``equalized_odds`` (the larger of these two gaps,
    with the groups of that figure), ``precision`` (predictive parity), ``accuracy``, and ``roc_auc`` where
    the model gives probabilities. With more than two classes and no ``positive`` in the plan: ``accuracy``
    alone. Regression: ``mae`` and ``mean_error`` (predicted minus true: who is overrated).

    Intervals. A group's share has the Jeffreys interval (Brown, Cai and DasGupta 2001, Interval estimation
    for a binomial proportion), a mean the bootstrap's, an area under the curve DeLong's. The gap's interval
    comes from a band that holds for all pairs of groups at once: with ``confidence`` every true difference
    lies in it, so the largest does. Its lower end is 0 where no difference is beyond chance. Where rows
    belong to clusters, clusters are drawn as wholes; a group with rows in fewer than 10 of them has no
    interval, and neither has the gap.

    :param champion: measure the champion instead of the challenger.
    :raises ArgumentError: ``argument.fairness`` (no such column, too many values, no such class, no
        champion), ``argument.extra_missing``.

    >>> measure(scored, FairnessPlan(attributes=("black",), positive="no"))  # doctest: +SKIP

    What it does not do: it does not say which criterion is the right one (several cannot hold at once), and
    it compares what is in the rows: a label that is itself unfair makes an unfair model look fair. Groups
    under ``min_rows``, and those for which a figure is not defined, are left out and named.
    """
    needs("fairlearn", extra="fairness", what="figures by group")
    contender = scored.champion if champion else scored.challenger
    if contender is None:
        raise _refused("there is no champion whose fairness could be measured", "measure the challenger")
    figures = _classifying(scored, contender, plan) if scored.task is Task.CLASSIFICATION else None
    figures = figures if figures is not None else _regressing(scored, contender.said)
    found: list[FairnessFigure] = []
    for attributes in _attributes(plan):
        names, codes = groups_of(scored.table, attributes, cuts=plan.cuts)
        made: dict[str, _Measured] = {}
        for metric, rows in figures.items():
            # Each figure has draws of its own: what is asked beside it does not change it.
            rng = np.random.default_rng([seed, *map(ord, f"{'&'.join(attributes)}:{metric}")])
            made[metric] = _measured(
                metric, rows, names, codes, attributes=attributes, plan=plan, clusters=scored.clusters,
                confidence=confidence, resamples=resamples, rng=rng,
            )  # fmt: skip
        found += [each.figure for each in made.values()]
        if "true_positive_rate" in made:
            found.append(_equalized_odds(made, confidence))
    log.info("Measured %d fairness figures on %d rows.", len(found), scored.rows)
    return tuple(found)


def _attributes(plan: FairnessPlan) -> list[tuple[str, ...]]:
    single = list(dict.fromkeys(plan.attributes))
    stray = [name for name in plan.cuts if name not in single]
    if stray:
        raise _refused(
            f"the fairness plan cuts {', '.join(stray)}, which it does not name as an attribute",
            f"cut one of {', '.join(single)}",
        )
    sizes = range(1, len(single) + 1 if plan.intersections else 2)
    return [names for size in sizes for names in itertools.combinations(single, size)]


def _classifying(scored: Scored, contender: Contender, plan: FairnessPlan) -> dict[str, _Rate | _Auc]:
    from fairlearn import metrics as fair  # type: ignore[import-untyped]
    from sklearn import metrics as sk

    said, truth = contender.said, scored.truth
    every = np.ones(len(truth))
    right = np.asarray(said.labels == truth)
    # Text and numbers alike: fairlearn counts where both are true, which is all that accuracy needs.
    figures: dict[str, _Rate | _Auc] = {
        "accuracy": _Rate(sk.accuracy_score, every.astype(bool), right, right, every)
    }
    classes = np.asarray(said.classes if said.classes is not None else np.unique(truth))
    favorable = _favorable(classes, plan)
    if favorable is None:
        return figures
    yes, chosen = np.asarray(truth == classes[favorable]), np.asarray(said.labels == classes[favorable])
    figures = {
        "selection_rate": _Rate(fair.selection_rate, yes, chosen, chosen, every),
        "true_positive_rate": _Rate(fair.true_positive_rate, yes, chosen, chosen & yes, yes),
        "false_positive_rate": _Rate(fair.false_positive_rate, yes, chosen, chosen & ~yes, ~yes),
        "precision": _Rate(sk.precision_score, yes, chosen, chosen & yes, chosen),
        **figures,
    }
    if said.probabilities is not None and said.classes is not None:
        figures["roc_auc"] = _Auc(sk.roc_auc_score, yes, np.asarray(said.probabilities)[:, favorable])
    return figures


def _regressing(scored: Scored, said: Predictions) -> dict[str, _Rate | _Auc]:
    from sklearn import metrics as sk

    errors = np.asarray(said.labels, dtype=np.float64) - scored.truth
    every = np.ones(len(errors))
    return {
        "mae": _Rate(
            sk.mean_absolute_error, scored.truth, said.labels, np.abs(errors), every, share=False
        ),
        "mean_error": _Rate(_mean_error, scored.truth, said.labels, errors, every, share=False),
    }  # fmt: skip


def _mean_error(truth: Any, said: Any) -> float:
    return float(np.mean(np.asarray(said) - np.asarray(truth)))


def _favorable(classes: Any, plan: FairnessPlan) -> int | None:
    """The place of the favorable class; None where nobody says which of many it is."""
    if plan.positive is None:
        return 1 if len(classes) == 2 else None
    for place, value in enumerate(classes.tolist()):
        if value == plan.positive or str(value) == str(plan.positive):
            return place
        if _as_number(value) is not None and _as_number(value) == _as_number(plan.positive):
            return place
    raise _refused(
        f"the favorable class that the plan names is none of the model's {len(classes)} classes",
        "name a value of the target as positive",
    )


def _as_number(value: Any) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        return float(value)
    return None


def _measured(
    metric: str,
    rows: _Rate | _Auc,
    names: Sequence[str],
    codes: Any,
    *,
    attributes: tuple[str, ...],
    plan: FairnessPlan,
    clusters: Any,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
) -> _Measured:
    counts = np.bincount(codes, minlength=len(names))
    if isinstance(rows, _Auc):
        yes = np.bincount(codes, weights=rows.truth, minlength=len(names))
        defined = (yes > 0) & (yes < counts)
    else:
        defined = np.bincount(codes, weights=rows.bottom, minlength=len(names)) > 0
    compared = np.flatnonzero((counts >= plan.min_rows) & defined)
    kept = np.isin(codes, compared)
    attribute = " & ".join(attributes)
    left_out = tuple(name for place, name in enumerate(names) if counts[place] and place not in set(compared))
    if not len(compared):
        return _Measured(
            FairnessFigure(attribute=attribute, metric=metric, criterion=CRITERIA[metric], groups=(),
                           gap=None, left_out=left_out)
        )  # fmt: skip
    # From here on groups are numbered among the compared ones.
    place = np.searchsorted(compared, codes[kept])
    frame = _frame(rows, kept, place)
    values = np.asarray([frame.by_group.iloc[index] for index in range(len(compared))], dtype=np.float64)
    near = None if clusters is None else np.asarray(clusters)[kept]
    if isinstance(rows, _Auc):
        made = draws_of.auc(rows.truth[kept], rows.said[kept], place, near, resamples=resamples, rng=rng)
        lower, upper = draws_of.ends(made, confidence)
        lower, upper = np.maximum(lower, 0.0), np.minimum(upper, 1.0)
    else:
        top, bottom = np.asarray(rows.top[kept], float), np.asarray(rows.bottom[kept], float)
        made = draws_of.ratios(top, bottom, place, near, share=rows.share, resamples=resamples, rng=rng)
        if rows.share and near is None:
            lower, upper = draws_of.jeffreys(top, bottom, place, confidence)
        else:
            lower, upper = draws_of.ends(made, confidence)
            lower = lower if (top < 0).any() else np.maximum(lower, 0.0)
            upper = np.minimum(upper, 1.0) if rows.share else upper
    gap = frame.difference() if len(compared) > 1 else None
    ratio = frame.ratio() if len(compared) > 1 and metric not in SIGNED else None
    band = draws_of.largest_gap([values], [made], confidence) if len(compared) > 1 else (None, None)
    groups = tuple(
        GroupFigure(
            group=names[int(code)], rows=int(counts[code]), value=_finite(values[index]),
            lower=_finite(lower[index]), upper=_finite(upper[index]),
        )
        for index, code in enumerate(compared)
    )  # fmt: skip
    figure = FairnessFigure(
        attribute=attribute, metric=metric, criterion=CRITERIA[metric], groups=groups, gap=_finite(gap),
        gap_lower=band[0], gap_upper=_capped(band[1], rows), ratio=_finite(ratio), left_out=left_out,
    )  # fmt: skip
    return _Measured(figure, values, made)


def _frame(rows: _Rate | _Auc, kept: Any, place: Any) -> Any:
    """fairlearn's frame of one figure over the rows of the compared groups."""
    import pandas as pd
    from fairlearn.metrics import MetricFrame  # type: ignore[import-untyped]

    truth, said = np.asarray(rows.truth)[kept], np.asarray(rows.said)[kept]
    if isinstance(rows, _Rate) and rows.share:
        # Rows that are alike are one row with a weight: four a group, however many rows there are.
        alike, place, counts = _cells(truth, said, place)
        return MetricFrame(
            metrics=rows.function, y_true=alike // 2 % 2, y_pred=alike % 2,
            sensitive_features=pd.Series(place), sample_params={"sample_weight": counts},
        )  # fmt: skip
    return MetricFrame(
        metrics=rows.function, y_true=truth, y_pred=said,
        # A series, because fairlearn takes an array of one row for a single value.
        sensitive_features=pd.Series(place),
    )  # fmt: skip


def _cells(truth: Any, said: Any, place: Any) -> tuple[Any, Any, Any]:
    """The combinations of truth and answer (as two bits) that occur in each group, and how often."""
    counts = np.bincount(place * 4 + truth.astype(np.int64) * 2 + said.astype(np.int64))
    there = np.flatnonzero(counts)
    return there % 4, there // 4, counts[there]


def _equalized_odds(made: Mapping[str, _Measured], confidence: float) -> FairnessFigure:
    """The larger of the gaps in true and in false positive rate (Hardt, Price and Srebro 2016)."""
    parts = [made[metric] for metric in ("true_positive_rate", "false_positive_rate")]
    figures = [part.figure for part in parts]
    left_out = tuple(dict.fromkeys(name for figure in figures for name in figure.left_out))
    odds = dataclasses.replace(
        figures[0], metric="equalized_odds", criterion=CRITERIA["equalized_odds"], groups=(), gap=None,
        gap_lower=None, gap_upper=None, ratio=None, left_out=left_out,
    )  # fmt: skip
    if any(figure.gap is None for figure in figures):
        return odds
    wider = max(figures, key=lambda figure: figure.gap or 0.0)
    lower, upper = draws_of.largest_gap(
        [part.values for part in parts], [part.draws for part in parts], confidence
    )
    ratios = [figure.ratio for figure in figures]
    return dataclasses.replace(
        odds, groups=wider.groups, gap=wider.gap, gap_lower=lower,
        gap_upper=None if upper is None else min(upper, 1.0),
        ratio=None if None in ratios else min(ratio for ratio in ratios if ratio is not None),
    )  # fmt: skip


def _capped(upper: float | None, rows: _Rate | _Auc) -> float | None:
    """No two shares are more than 1 apart."""
    bounded = isinstance(rows, _Auc) or rows.share
    return None if upper is None else min(upper, 1.0) if bounded else upper


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.fairness", todo=todo)
