"""How a figure by group would vary from sample to sample, and the interval of the largest gap.

Private to :mod:`airflow_provider_xops.evaluation.fairness`. A *draw* is one made-up outcome of the same
study: an array of draws has one row a draw and one column a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["auc", "ends", "jeffreys", "largest_gap", "ratios"]

# From so many rows or clusters on, the bootstrap's distribution of a mean is the normal one to all that
# matters.
NORMAL_FROM = 2_000
CLUSTER_BLOCK = 100
# Of their size; what differs by less is rounding.
ALIKE = 1e-12
# Drawn at once of a mean's rows, so that more resamples take time and not memory.
CELLS_AT_ONCE = 5_000_000
# Of fewer than that many nobody can say how clusters vary; a figure has no interval then.
MIN_CLUSTERS = 10


def ratios(top: Any, bottom: Any, codes: Any, clusters: Any, *, share: bool, resamples: int, rng: Any) -> Any:
    """Draws of sum(top) / sum(bottom) in each group.

    :param share: ``top`` counts some of what ``bottom`` counts. Then, without clusters, a draw is from the
        share's posterior with one hit and one miss added (as Agresti and Caffo 2000 add them for
        differences), which knows that 0 of 9 is not certainly never.
    """
    groups = int(codes.max()) + 1
    if clusters is not None:
        return _clustered(top, bottom, codes, clusters, groups, resamples=resamples, rng=rng)
    if share:
        hits, of = (np.bincount(codes, weights=each, minlength=groups) for each in (top, bottom))
        return rng.beta(hits + 1, of - hits + 1, size=(resamples, groups))
    return np.column_stack(
        [_means(top[codes == group], resamples=resamples, rng=rng) for group in range(groups)]
    )


def auc(truth: Any, scores: Any, codes: Any, clusters: Any, *, resamples: int, rng: Any) -> Any:
    """Draws of each group's area under the ROC curve: normal, with DeLong's covariance (DeLong, DeLong and
    Clarke-Pearson 1988); rows of a cluster vary together, as in Obuchowski 1997."""
    groups = int(codes.max()) + 1
    values = np.zeros(groups)
    pull = np.zeros(len(codes))
    for group in range(groups):
        rows = np.flatnonzero(codes == group)
        values[group], pull[rows] = _pull_of(truth[rows], scores[rows])
    if clusters is None:
        spread = np.diag([_delong(pull[codes == group], truth[codes == group]) for group in range(groups)])
        return _normal(values, spread, resamples=resamples, rng=rng)
    near = np.unique(clusters, return_inverse=True)[1]
    made = _normal(values, _covariance(pull, codes, near, groups), resamples=resamples, rng=rng)
    return _of_few(made, values, _clusters_in(codes, near, groups), rng)


def ends(made: Any, confidence: float) -> tuple[Any, Any]:
    """The ends of each group's interval from its draws; NaN where the draws do not vary."""
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(made, [tail, 1 - tail], axis=0)
    # Draws that are all alike tell of a method at its end, not of certainty.
    still = np.ptp(made, axis=0) <= ALIKE * np.abs(made).max(axis=0)
    return np.where(still, np.nan, lower), np.where(still, np.nan, upper)


def jeffreys(top: Any, bottom: Any, codes: Any, confidence: float) -> tuple[Any, Any]:
    """The Jeffreys interval of each group's share; it ends at 0 where none is counted, and at 1 where all."""
    from scipy.stats import beta

    groups, tail = int(codes.max()) + 1, (1 - confidence) / 2
    hits, of = (np.bincount(codes, weights=each, minlength=groups) for each in (top, bottom))
    lower, upper = (beta.ppf(at, hits + 0.5, of - hits + 0.5) for at in (tail, 1 - tail))
    return np.where(hits == 0, 0.0, lower), np.where(hits == of, 1.0, upper)


def largest_gap(
    values: Sequence[Any], draws: Sequence[Any], confidence: float
) -> tuple[float | None, float | None]:
    """The interval of the largest difference between two groups, over one figure or several.

    A band around every pair's difference that covers all of them at once, its width from the draws' largest
    studentized deviation (Tukey's way, with resampling for the distribution); where it covers all of them,
    the largest true one lies between the band's largest lower and largest upper end.
    """
    apart, middles, errors = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    furthest = np.zeros(len(draws[0]))
    for value, made in zip(values, draws, strict=True):
        alike = ALIKE * np.abs(made).max(initial=0.0)
        # One group against all later ones at a time: all pairs of many groups would not fit into memory.
        for one in range(len(value) - 1):
            moved = made[:, [one]] - made[:, one + 1 :]
            middle, error = moved.mean(axis=0), moved.std(axis=0)
            if not np.isfinite(error).all() or (error <= alike).any():
                return None, None
            np.maximum(furthest, np.max(np.abs(moved - middle) / error, axis=1), out=furthest)
            apart.append(np.abs(value[one] - value[one + 1 :]))
            middles.append(middle)
            errors.append(error)
    gap = float(np.concatenate(apart).max(initial=-1.0))
    if gap < 0:
        return None, None
    reach = np.quantile(furthest, confidence) * np.concatenate(errors)
    lower = float(np.max(np.abs(np.concatenate(middles)) - reach))
    upper = float(np.max(np.abs(np.concatenate(middles)) + reach))
    # Draws of shares lie a little nearer to one half than the shares: the gap seen is within in any case.
    return max(0.0, min(lower, gap)), max(upper, gap)


def _means(values: Any, *, resamples: int, rng: Any) -> Any:
    count = len(values)
    if count >= NORMAL_FROM:
        return rng.normal(values.mean(), values.std() / np.sqrt(count), size=resamples)
    step = max(1, CELLS_AT_ONCE // count)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([values[rng.integers(0, count, (size, count))].mean(axis=1) for size in sizes])


def _clustered(
    top: Any, bottom: Any, codes: Any, clusters: Any, groups: int, *, resamples: int, rng: Any
) -> Any:
    near = np.unique(clusters, return_inverse=True)[1]
    count = int(near.max()) + 1
    over, under = (np.bincount(codes, weights=each, minlength=groups) for each in (top, bottom))
    values = over / under
    there = bottom > 0
    known = _clusters_in(codes[there], near[there], groups)
    if count >= NORMAL_FROM:
        # What each row pulls the ratio up or down by, to the first order.
        pull = (top - values[codes] * bottom) / under[codes]
        made = _normal(values, _covariance(pull, codes, near, groups), resamples=resamples, rng=rng)
        return _of_few(made, values, known, rng)
    place = near * groups + codes
    sums = [
        np.bincount(place, weights=each, minlength=count * groups).reshape(count, groups)
        for each in (top, bottom)
    ]
    parts = []
    for start in range(0, resamples, CLUSTER_BLOCK):
        size = min(CLUSTER_BLOCK, resamples - start)
        times = rng.multinomial(count, np.full(count, 1 / count), size=size)
        over, under = times @ sums[0], times @ sums[1]
        parts.append(np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0))
    made = np.concatenate(parts)
    # A draw in which a group has no row says nothing of it: the group's own value stands in.
    made = np.where(np.isnan(made), values, made)
    # The bootstrap of n divides by n where a variance divides by n - 1.
    made = values + (made - values) * np.sqrt(known / np.maximum(known - 1, 1))
    return _of_few(made, values, known, rng)


def _clusters_in(codes: Any, near: Any, groups: int) -> Any:
    """In how many clusters each group has rows."""
    pairs = np.unique(near * groups + codes)
    return np.bincount(pairs % groups, minlength=groups)


def _covariance(pull: Any, codes: Any, near: Any, groups: int) -> Any:
    """Of the groups' figures, from what each row pulls at its group's, summed in its cluster."""
    from scipy import sparse

    count = int(near.max()) + 1
    sums = sparse.coo_matrix((pull, (near, codes)), shape=(count, groups)).tocsr()
    return (sums.T @ sums).toarray() * (count / max(count - 1, 1))


def _normal(values: Any, spread: Any, *, resamples: int, rng: Any) -> Any:
    unknown = ~np.isfinite(np.diag(spread))
    made = rng.multivariate_normal(values, np.nan_to_num(spread), size=resamples, method="eigh")
    made[:, unknown] = np.nan
    return made


def _of_few(made: Any, values: Any, clusters: Any, rng: Any) -> Any:
    """Draws as wide as so few clusters in a group make them: Student's instead of normal tails, and none
    under ``MIN_CLUSTERS``."""
    from scipy.stats import chi2

    chance = rng.random(len(made))
    found = np.full_like(made, np.nan)
    for count in np.unique(clusters[clusters >= MIN_CLUSTERS]):
        same = clusters == count
        wider = np.sqrt((count - 1) / chi2.ppf(chance, count - 1))
        found[:, same] = values[same] + (made[:, same] - values[same]) * wider[:, None]
    return found


def _pull_of(truth: Any, scores: Any) -> tuple[float, Any]:
    """The area, and by how much each row pulls it up or down (its influence, which sums to zero)."""
    from scipy.stats import rankdata

    yes = np.asarray(truth, dtype=bool)
    every = rankdata(scores)
    count, other = int(yes.sum()), int((~yes).sum())
    beaten = np.empty(len(every))
    beaten[yes] = (every[yes] - rankdata(scores[yes])) / other
    beaten[~yes] = 1 - (every[~yes] - rankdata(scores[~yes])) / count
    area = float(beaten[yes].mean())
    return area, (beaten - area) / np.where(yes, count, other)


def _delong(pull: Any, truth: Any) -> float:
    yes = np.asarray(truth, dtype=bool)
    # Each side's sample variance of the mean; the pulls are deviations already divided by the side's rows.
    parts = [
        float(np.sum(pull[side] ** 2)) * side.sum() / (side.sum() - 1)
        for side in (yes, ~yes)
        if side.sum() > 1
    ]
    return sum(parts) if len(parts) == 2 else float("nan")
