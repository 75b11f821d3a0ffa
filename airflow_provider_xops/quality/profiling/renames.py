"""Which removed column is probably which added one: a guess from two profiles.

For profiles. A column counts as renamed when, of all pairs of a removed and an added column of one type, the
two are each other's best match and their likeness is at least :data:`THRESHOLD`. The likeness is nine tenths
content and one tenth place (1 at the same position, less the further it moved):

* the shares of missing values, compared as they are;
* numbers and times: how far the quantiles of one lie from those of the other, in interquartile ranges of
  both (1 where they agree, 0 from one range on);
* texts: how much the shares of the most frequent values overlap, how much those of the shapes do, and the
  ratio of the mean lengths;
* booleans: the shares of true.

The lowest of these counts, so one clear difference is enough to refuse. It stays a guess: two columns of
the same kind of noise look alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = ["THRESHOLD", "likeness", "probable_renames"]

THRESHOLD = 0.8
CONTENT = 0.9


def probable_renames(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Old name to new name, from the documents of two profiles."""
    old, new = before["columns"], after["columns"]
    names = {one["name"] for one in old}, {one["name"] for one in new}
    removed = [(place, one) for place, one in enumerate(old) if one["name"] not in names[1]]
    added = [(place, one) for place, one in enumerate(new) if one["name"] not in names[0]]
    scores = {
        (one["name"], other["name"]): CONTENT * likeness(one, other)
        + (1 - CONTENT) * (1 - abs(here - there) / max(len(old), len(new)))
        for here, one in removed
        for there, other in added
    }
    found = {}
    for (was, now), score in sorted(scores.items(), key=lambda item: (-item[1], item[0])):
        rivals = [rival for (x, y), rival in scores.items() if (x == was) != (y == now)]
        # A tie is no answer.
        if score >= THRESHOLD and all(rival < score for rival in rivals):
            found[was] = now
    return found


def likeness(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How alike two columns are by their figures, 0 to 1; 0 for other types, or without a value."""
    if one["type"] != other["type"] or not one.get("count") or not other.get("count"):
        return 0.0
    parts = [1 - abs(one["null_share"] - other["null_share"])]
    kind = one["kind"]
    if kind == "boolean":
        parts.append(1 - abs(one["true_share"] - other["true_share"]))
    elif kind in ("number", "date", "timestamp"):
        parts.append(_quantiles_alike(one, other))
    elif kind == "text":
        parts.append(_overlap(_spectrum(one), _spectrum(other)))
        parts.append(_overlap(_shapes(one), _shapes(other)))
        lengths = sorted((one["mean_length"], other["mean_length"]))
        parts.append(lengths[0] / lengths[1] if lengths[1] else 1.0)
    else:
        return 0.0
    return float(max(0.0, min(parts)))


def _quantiles_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    mine, theirs = _numbers(one), _numbers(other)
    if mine.keys() != theirs.keys() or not mine:
        return 0.0
    apart = max(abs(mine[name] - theirs[name]) for name in mine if name not in ("1", "99"))
    spread = max(mine["75"] - mine["25"], theirs["75"] - theirs["25"])
    if spread <= 0:
        return 1.0 if apart == 0 else 0.0
    return max(0.0, 1 - apart / spread)


def _numbers(column: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, value in column.get("quantiles", {}).items():
        if isinstance(value, str):
            value = datetime.fromisoformat(value).timestamp() if len(value) > 10 else _day(value)
        if value is not None:
            found[name] = float(value)
    return found


def _day(text: str) -> float:
    return float(datetime.fromisoformat(text).toordinal())


def _spectrum(column: Mapping[str, Any]) -> dict[Any, float]:
    """The shares of the most frequent values, by rank: figures that know no value."""
    return {rank: count / column["count"] for rank, count in enumerate(column.get("top_counts", ()))}


def _shapes(column: Mapping[str, Any]) -> dict[Any, float]:
    return {one["shape"]: one["share"] for one in column.get("shapes", {}).get("shapes", ())}


def _overlap(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    """1 less the total variation distance of two sets of shares; what neither names counts as alike."""
    return 1 - sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys()) / 2
