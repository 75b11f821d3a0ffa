"""SHAP values of ensembles of trees, exactly, thousands of rows a second.

Private to :mod:`airflow_provider_xops.evaluation._shap_models`. The values are those of shap's interventional
tree algorithm (Lundberg et al. 2020, From local explanations to global understanding with explainable AI for
trees). That walks every tree once for each pair of a row and a background row, and compares in single
precision, so that a value that is a threshold, as values of the training data often are, goes astray. Here
each leaf knows beforehand which background rows fail at which of its features, thresholds are as the model
has them, and the columns that were made of one feature join together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["Trees"]

# At which features of a leaf a row fails are bits of one number.
MAX_BITS = 52
# Log-odds so much apart differ in nothing but rounding from a straight line between them.
NEAR = 1e-6
# Rows that are looked at together: their columns and shares stay near the processor.
AT_ONCE = 512


class Trees:
    """The trees of a model, and the background rows that its answers are compared with.

    :param ensemble: the model as shap reads it. :param owners: of each column the place of the feature it was
        made of. :param features: how many there are. :param known: the background, as the model's last step
        sees it. :param logistic: the answer is the probability whose log-odds are the sum of the leaves.
    :raises ValueError: trees of a kind that is not known here.
    """

    def __init__(
        self, ensemble: Any, owners: Sequence[int], features: int, known: Any, *, logistic: bool
    ) -> None:
        limit = ensemble.tree_limit if (ensemble.tree_limit or 0) > 0 else len(ensemble.values)
        self._features, self._logistic, self._type = features, logistic, ensemble.input_dtype
        # Of two classes the second alone.
        second = slice(1 if len(np.ravel(ensemble.base_offset)) == 2 else 0, None)
        self._offset = np.asarray(ensemble.base_offset, dtype=np.float64).ravel()[second]
        if logistic and len(self._offset) != 1:
            raise ValueError("log-odds of several classes")
        self._nodes = (
            ensemble.children_left[:limit], ensemble.children_right[:limit],
            ensemble.children_default[:limit], ensemble.features[:limit],
            np.asarray(ensemble.thresholds[:limit], dtype=np.float64),
            np.ascontiguousarray(ensemble.values[:limit, :, second], dtype=np.float64),
        )  # fmt: skip
        kinds = getattr(ensemble, "threshold_types", None)
        if kinds is not None and (kinds[:limit][self._nodes[0] >= 0] != 0).any():
            raise ValueError("splits by category")
        others = self._as_compared(known)
        self._known = self._sums(others)
        self._leaves = _leaves(self._nodes, np.asarray(owners, dtype=np.int64), others)
        self._weights = _weights(int(np.diff(self._leaves[1]).max(initial=0)))

    def explain(self, columns: Any) -> tuple[Any, Any]:
        """Values (rows x features x outputs) and bases (outputs), for rows as the last step sees them."""
        rows = self._as_compared(columns)
        values = np.zeros((len(rows), self._features, len(self._offset)))
        for start in range(0, len(rows), AT_ONCE):
            some, made = rows[start : start + AT_ONCE], values[start : start + AT_ONCE]
            flat, shares = np.ascontiguousarray(some.T), self._shares(some)
            _compiled(_explain)(flat, shares, *self._leaves, *self._weights, made)
        known = _probability(self._known) if self._logistic else self._known
        return values, known.mean(axis=0)

    def _shares(self, rows: Any) -> Any:
        """What the comparison with each background row counts: of log-odds, so much that their differences
        become those of the probabilities."""
        share = 1 / len(self._known)
        if not self._logistic:
            return np.full((1, len(self._known)), share)
        there, known = self._sums(rows), self._known[:, 0]
        said, heard = _probability(there), _probability(known)
        steps = there - known
        near = np.abs(steps) < NEAR
        middle = _probability((there + known) / 2)
        return np.where(near, middle * (1 - middle), (said - heard) / np.where(near, 1.0, steps)) * share

    def _sums(self, rows: Any) -> Any:
        sums = np.tile(self._offset, (len(rows), 1))
        _compiled(_arrive)(rows, *self._nodes, sums)
        return sums

    def _as_compared(self, columns: Any) -> Any:
        return np.ascontiguousarray(np.asarray(columns).astype(self._type).astype(np.float64))


def _leaves(nodes: tuple[Any, ...], owners: Any, others: Any) -> tuple[Any, ...]:
    """What the leaves of all trees demand, and how the background rows do there; each part's entries lie one
    after the other, with the place where those of a leaf (a term, a pattern) begin.

    A term is a leaf and a feature on its path; its conditions are a range of each column made of the feature.
    A pattern is the terms of a leaf at which background rows fail, as bits, and the rows that do.
    """
    values: list[Any] = []
    terms: list[tuple[Any, ...]] = []
    conditions: list[tuple[Any, ...]] = []
    patterns: list[tuple[Any, ...]] = []
    for place in range(len(nodes[0])):
        left, right, default, split, threshold, value = (part[place] for part in nodes)
        leaves, paths = _paths(left, right)
        told = _terms(paths, left == default, split, threshold, owners)
        found = _patterns(told, len(leaves), others)
        first = sum(len(each) for each in values)
        shift = sum(len(each[0]) for each in terms)
        begun = sum(len(each[0]) for each in patterns)
        values.append(value[leaves])
        terms.append((told[0] + first, told[1]))
        conditions.append((told[2] + shift, *told[3:]))
        patterns.append((found[0] + first, found[1], found[2] + begun, found[3]))
    worth = np.concatenate(values)
    term_leaf, feature = _joined(terms)
    owner, column, low, high, missing = _joined(conditions)
    pattern_leaf, code, pattern, row = _joined(patterns)
    return (
        worth, _begins(term_leaf, len(worth)), feature, _begins(owner, len(feature)), column, low, high,
        missing, _begins(pattern_leaf, len(worth)), code, sum((code >> bit) & 1 for bit in range(MAX_BITS)),
        _begins(pattern, len(code)), row,
    )  # fmt: skip


def _paths(left: Any, right: Any) -> tuple[Any, Any]:
    """The leaves, and of each step on the way to one: the leaf's number, the split, whether it goes left."""
    splits = np.flatnonzero(left >= 0)
    above = np.full(len(left), -1)
    above[left[splits]] = above[right[splits]] = splits
    leaves = np.flatnonzero((left < 0) & ((above >= 0) | (np.arange(len(left)) == 0)))

    def upwards() -> Iterator[Any]:
        which, here = np.arange(len(leaves)), leaves
        yield np.zeros((3, 0), dtype=np.int64)
        while len(which):
            inner = above[here] >= 0
            which, here = which[inner], here[inner]
            yield np.stack([which, above[here], left[above[here]] == here])
            here = above[here]

    return leaves, np.concatenate(list(upwards()), axis=1)


def _terms(paths: Any, default_left: Any, split: Any, threshold: Any, owners: Any) -> tuple[Any, ...]:
    """Of each term its leaf and feature; of each condition its term, column, range, and whether a missing
    value meets it."""
    leaf, node, to_left = paths
    column, wide = split[node].astype(np.int64), len(owners)
    keys, condition = np.unique((leaf * wide + owners[column]) * wide + column, return_inverse=True)
    low, high, missing = np.full(len(keys), -np.inf), np.full(len(keys), np.inf), np.ones(len(keys), bool)
    goes_left = to_left.astype(bool)
    np.minimum.at(high, condition[goes_left], threshold[node[goes_left]])
    np.maximum.at(low, condition[~goes_left], threshold[node[~goes_left]])
    np.logical_and.at(missing, condition, default_left[node] == goes_left)
    owned, term = np.unique(keys // wide, return_inverse=True)
    return owned // wide, owned % wide, term, keys % wide, low, high, missing


def _patterns(told: tuple[Any, ...], leaves: int, others: Any) -> tuple[Any, ...]:
    """Of each pattern its leaf and code; of each background row of a pattern the pattern and the row."""
    leaf, _, term, column, low, high, missing = told
    bit = np.arange(len(leaf)) - np.searchsorted(leaf, leaf)
    if bit.max(initial=0) >= MAX_BITS:
        raise ValueError("a leaf depends on too many features")
    codes = np.zeros((leaves, len(others)), dtype=np.int64)
    for place, row in enumerate(others):
        given = row[column]
        meets = np.where(np.isnan(given), missing, (low < given) & (given <= high))
        failed = np.zeros(len(leaf), dtype=bool)
        failed[term[~meets]] = True
        codes[:, place] = np.bincount(leaf[failed], weights=2.0 ** bit[failed], minlength=leaves)
    order = np.argsort(codes, axis=1, kind="stable")
    ordered = np.take_along_axis(codes, order, axis=1)
    new = np.ones(codes.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    pattern = np.cumsum(new.ravel()) - 1
    return np.nonzero(new)[0], ordered[new], pattern, order.ravel()


def _joined(parts: list[tuple[Any, ...]]) -> list[Any]:
    return [np.ascontiguousarray(np.concatenate(each)) for each in zip(*parts, strict=True)]


def _begins(owner: Any, count: int) -> Any:
    """Where the entries of each owner begin, and where the last one's end; ``owner`` is in order."""
    return np.searchsorted(owner, np.arange(count + 1))


def _weights(bits: int) -> tuple[Any, Any]:
    """By how many features bring a row to a leaf, and how many keep it away, the weight of each of the ones
    and of the others (Shapley 1953)."""
    brings, keeps = np.zeros((bits + 1, bits + 1)), np.zeros((bits + 1, bits + 1))
    for own in range(bits + 1):
        for away in range(bits + 1 - own):
            if own:
                brings[own, away] = 1 / (math.comb(own + away - 1, away) * (own + away))
            if away:
                keeps[own, away] = 1 / (math.comb(own + away - 1, own) * (own + away))
    return brings, keeps


def _probability(log_odds: Any) -> Any:
    from scipy.special import expit

    return expit(log_odds)


@functools.cache
def _compiled(function: Any) -> Any:
    """shap brings numba along; compiling takes about a second in each process."""
    from numba import njit  # type: ignore[import-untyped]

    return njit(nogil=True)(function)


def _arrive(
    rows: Any, left: Any, right: Any, default: Any, split: Any, threshold: Any, value: Any, sums: Any
) -> None:
    """Adds to each row's sums what the leaves say that it arrives at."""
    for row in range(len(rows)):
        for tree in range(len(left)):
            node = 0
            while left[tree, node] >= 0:
                given = rows[row, split[tree, node]]
                if math.isnan(given):
                    node = default[tree, node]
                elif given <= threshold[tree, node]:
                    node = left[tree, node]
                else:
                    node = right[tree, node]
            for output in range(value.shape[2]):
                sums[row, output] += value[tree, node, output]


def _explain(
    rows: Any, shares: Any, worth: Any, leaf_terms: Any, features: Any, term_conditions: Any, columns: Any,
    lows: Any, highs: Any, missing: Any, leaf_patterns: Any, codes: Any, sizes: Any, pattern_rows: Any,
    others: Any, brings: Any, keeps: Any, values: Any,
) -> None:  # fmt: skip
    """Adds to each row's values what every leaf adds.

    A row and a background row reach a leaf together where neither fails at what the other fails at. Then the
    features at which the background row fails bring the row there, and those at which the row fails keep it
    away.

    :param rows: columns x rows, so that a condition is looked at for all rows at once. :param shares: rows
        (or one for all) x background rows. :param sizes: how many terms are in a code.
    """
    failures = np.zeros(rows.shape[1], dtype=np.int64)
    for leaf in range(len(worth)):
        first = leaf_terms[leaf]
        failures[:] = 0
        for term in range(first, leaf_terms[leaf + 1]):
            bit = 1 << (term - first)
            for condition in range(term_conditions[term], term_conditions[term + 1]):
                given, low, high = rows[columns[condition]], lows[condition], highs[condition]
                if missing[condition]:
                    for row in range(len(given)):
                        if (given[row] <= low) | (given[row] > high):
                            failures[row] |= bit
                else:
                    for row in range(len(given)):
                        if not ((given[row] > low) & (given[row] <= high)):
                            failures[row] |= bit
        for row in range(len(failures)):
            failed = failures[row]
            away, rest = 0, failed
            while rest:
                rest &= rest - 1
                away += 1
            mine = shares[min(row, len(shares) - 1)]
            kept = 0.0
            for pattern in range(leaf_patterns[leaf], leaf_patterns[leaf + 1]):
                code = codes[pattern]
                if code & failed or not code | failed:
                    continue
                share = 0.0
                for place in range(pattern_rows[pattern], pattern_rows[pattern + 1]):
                    share += mine[others[place]]
                kept += share * keeps[sizes[pattern], away]
                share *= brings[sizes[pattern], away]
                term = first
                while code:
                    if code & 1:
                        for output in range(worth.shape[1]):
                            values[row, features[term], output] += share * worth[leaf, output]
                    code >>= 1
                    term += 1
            term = first
            while failed and kept:
                if failed & 1:
                    for output in range(worth.shape[1]):
                        values[row, features[term], output] -= kept * worth[leaf, output]
                failed >>= 1
                term += 1
