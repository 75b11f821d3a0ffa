"""A suite suggested from profiles: each expectation with the reason and the figures behind it, for review.

For data engineers. One profile says what the data are like; several versions' profiles say how much that
varies from one to the next, so limits come from all of them. The result is YAML that
:func:`~airflow_provider_xops.quality.suites.load_suite` reads::

    suite = suggest_suite([profile_document(lake, record) for record in profiles_of(lake, ref)])
    Path("flights.yaml").write_text(suite.text)

The rules, and where they come from:

* *missing values*: never missing in :data:`ENOUGH` rows or more is critical; else the share that may be
  missing is the upper limit of Clopper and Pearson (1934) of the worst profile, with 99.9 % confidence.
* *ranges of numbers*: the nearer of Tukey's outer fences (1977: three interquartile ranges beyond the
  quartiles) and the range seen, extended so that as many rows again pass with a chance of 99.9 %, if the
  outer 5 % fall off exponentially (peaks over a threshold: Pickands 1975), by a tenth of it at least. Where
  values lie beyond the fences, ``mostly`` is the lower limit of the share within. Never negative stays so.
* *sets of values*: where the share of values never seen yet is at most 0.1 % by Good and Turing (1953):
  values seen once among all seen. Profiles without values suggest none.
* *keys*: what identified every row in every profile. *Shapes* and *lengths* of texts: what at least 95 %
  have, ``mostly`` as above.
* *rows* and *means* of five or more profiles: natural limits of a chart of single values and moving ranges
  (Shewhart; Montgomery 6.4), widened to what was seen; of fewer: half to twice the rows seen. Rows only of
  profiles of one partition (or of a table without any).

What it does not do: know what is right. It says what was usual; bad data that were always there become a
rule unless the reviewer strikes it out. Ranges of times are never suggested: they move with every partition.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.profiling._yaml import yaml_text
from airflow_provider_xops.quality.profiling.bounds import (
    natural_limits,
    outward,
    share_at_least,
    share_at_most,
    unseen_share,
)

__all__ = ["ENOUGH", "SuggestedSuite", "suggest_suite"]

ENOUGH = 300  # rows from which "never missing" bounds the share below 2.3 % with 99.9 % confidence
FEW_ROWS = 30
KEY_ROWS = 100
MOST_VALUES = 50
MOST_NUMBERS = 12
UNSEEN = 0.001
SHAPE_SHARE = 0.95
MOST_SHAPES = 4
SEVERAL = 5
TAIL_CHANCE = 0.001

# A pandas column of whole numbers holds floats where one is missing, and Python integers where a float would
# round it: a type that changes with the data is no expectation.
_TYPES = {"float": "float32", "double": "float64"}

Profile = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SuggestedSuite:
    """A suite as text, and the same as data.

    :param text: YAML; ``expectations`` are plain mappings: type, kwargs, severity, meta with the reason.
    """

    name: str
    text: str
    expectations: tuple[dict[str, Any], ...]


def suggest_suite(profiles: Sequence[Profile], *, name: str | None = None) -> SuggestedSuite:
    """The suite that these profiles suggest.

    :param profiles: documents of profiles of one table, oldest first; columns are those of the newest.
    :param name: of the suite; by default the table's with ``_suggested``.
    :raises ArgumentError: ``argument.empty``: no profile.
    """
    if not profiles:
        raise ArgumentError(
            "there is no profile to suggest from", code="argument.empty", todo="profile the table first"
        )
    newest = profiles[-1]
    found = [*_table(profiles)]
    for column in newest["columns"]:
        history = [_named(profile, column["name"]) for profile in profiles]
        found += _column([(p, one) for p, one in zip(profiles, history, strict=True) if one is not None])
    chosen = name or f"{str(newest.get('dataset', 'data')).partition('@')[0]}_suggested"
    return SuggestedSuite(name=chosen, text=_yaml(chosen, profiles, found), expectations=tuple(found))


def _table(profiles: Sequence[Profile]) -> Iterable[dict[str, Any]]:
    newest = profiles[-1]
    names = [one["name"] for one in newest["columns"]]
    seen = _seen(profiles)
    if all([one["name"] for one in profile["columns"]] == names for profile in profiles):
        reason = f"the columns, in this order, of {seen}"
        yield _expect("expect_table_columns_to_match_ordered_list", reason, "critical", column_list=names)
    else:
        for name in names:
            if all(_named(profile, name) is not None for profile in profiles):
                yield _expect("expect_column_to_exist", f"there in {seen}", "critical", column=name)
    if newest["rows"] and _partitions(newest) == 1:
        # Of as much at a time as a run will look at: what several partitions have says nothing about one.
        rows = [profile["rows"] for profile in profiles if _partitions(profile) == 1]
        low, high, how = _row_limits(rows)
        yield _expect("expect_table_row_count_to_be_between", how, "warning", min_value=low, max_value=high)
    yield from _keys(profiles)


def _partitions(profile: Profile) -> int:
    return int(profile.get("partition_count", 1))


def _row_limits(rows: Sequence[int]) -> tuple[int, int, str]:
    told = (
        f"{min(rows):,} to {max(rows):,} rows in {len(rows)} profiles"
        if len(rows) > 1
        else f"{rows[0]:,} rows in one profile"
    )
    if len(rows) >= SEVERAL:
        low, high = natural_limits(rows)
        return (
            max(0, math.floor(min(low, *rows))),
            math.ceil(max(high, *rows)),
            f"natural limits (mean and mean moving range) of {told}",
        )
    return min(rows) // 2, 2 * max(rows), f"half to twice: {told}; narrow it when you know more"


def _keys(profiles: Sequence[Profile]) -> Iterable[dict[str, Any]]:
    newest = profiles[-1]
    if newest["rows"] < KEY_ROWS:
        return
    for key in newest["table"]["keys"]:
        if not all(key in profile["table"]["keys"] for profile in profiles):
            continue
        rows = sum(profile["rows"] for profile in profiles)
        reason = (
            f"no two of {rows:,} rows have the same value{'s' if len(key) > 1 else ''}, in {_seen(profiles)}"
        )
        if len(key) > 1:
            yield _expect(
                "expect_compound_columns_to_be_unique", reason, "critical", column_list=list(key),
                ignore_row_if="never",
            )  # fmt: skip
        else:
            column = _named(newest, key[0]) or {}
            severity = "warning" if column.get("kind") in ("timestamp", "date") else "critical"
            yield _expect("expect_column_values_to_be_unique", reason, severity, column=key[0])


def _column(history: Sequence[tuple[Profile, Mapping[str, Any]]]) -> Iterable[dict[str, Any]]:
    if sum(profile["rows"] for profile, _ in history) < FEW_ROWS:
        return
    newest = history[-1][1]
    # What was learned of another type says nothing about this one.
    same = [(profile, one) for profile, one in history if one["type"] == newest["type"]]
    columns = [one for _, one in same]
    if newest["type"] in _TYPES:
        reason = f"the type in {_seen([profile for profile, _ in same])}"
        yield _expect(
            "expect_column_values_to_be_of_type", reason, "critical", column=newest["name"],
            type_=_TYPES[newest["type"]],
        )  # fmt: skip
    yield from _not_missing(same)
    if not all(one["count"] for one in columns):
        return
    if newest["kind"] in ("text", "number") and (values := _value_set(columns)) is not None:
        yield values
        return
    if newest["kind"] == "number":
        yield from _range(columns)
        yield from _mean(columns)
    elif newest["kind"] == "text":
        yield from _lengths(columns)
        yield from _regex(columns)


def _not_missing(history: Sequence[tuple[Profile, Mapping[str, Any]]]) -> Iterable[dict[str, Any]]:
    counted = [(one["nulls"] + one["nan"], profile["rows"]) for profile, one in history if profile["rows"]]
    column, rows = history[-1][1]["name"], sum(of for _, of in counted)
    if not any(missing for missing, _ in counted):
        most = _percent(share_at_most(0, rows))
        reason = f"none missing in {rows:,} rows: at most {most} with 99.9 % confidence"
        severity = "critical" if rows >= ENOUGH else "warning"
        yield _expect("expect_column_values_to_not_be_null", reason, severity, column=column)
        return
    missing, of = max(counted, key=lambda one: share_at_most(*one))
    mostly = _down(1 - share_at_most(missing, of))
    if mostly > 0:
        reason = (
            f"{missing:,} of {of:,} missing ({_percent(missing / of)}) in the profile with most; "
            f"up to {_percent(1 - mostly)} with 99.9 % confidence"
        )
        yield _expect("expect_column_values_to_not_be_null", reason, "warning", column=column, mostly=mostly)


def _value_set(columns: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    newest = columns[-1]
    pooled: Counter[Any] = Counter()
    if len({str(one.get("top_values")) for one in columns}) > 1 and all(
        one.get("distinct", {}).get("value") == 1 for one in columns
    ):
        return None  # it is the same within a profile and another in the next: it moves with the partition
    for one in columns:
        listed = one.get("top_values", ())
        if sum(value["count"] for value in listed) != one["count"] or one["infinite"]:
            return None  # not all of them are known
        for value in listed:
            pooled[value["value"]] += value["count"]
    total, once = sum(pooled.values()), sum(n == 1 for n in pooled.values())
    most = MOST_VALUES if newest["kind"] == "text" else MOST_NUMBERS
    if not pooled or len(pooled) > most or total < KEY_ROWS or unseen_share(once, total) > UNSEEN:
        return None
    if newest["kind"] == "number" and newest["type"] in _TYPES:
        return None  # a measure that happened to be round
    reason = (
        f"{len(pooled)} different values among {total:,}, {once} of them once: by Good and Turing at most "
        f"{_percent(UNSEEN)} of what comes is new"
    )
    kwargs = {"column": newest["name"], "value_set": sorted(pooled)}
    return _expect("expect_column_values_to_be_in_set", reason, "warning", **kwargs)


def _range(columns: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    whole = "int" in columns[-1]["type"]
    seen = min(one["min"] for one in columns), max(one["max"] for one in columns)
    inside = [(one["count"], one["count"] + one["infinite"]) for one in columns]
    low = min(one["min"] - _reach(one, "5", "1") for one in columns)
    high = max(one["max"] + _reach(one, "95", "99") for one in columns)
    how = "the range seen, and as far beyond as its tails say"
    if all("fences" in one for one in columns):
        low_fence = min(one["fences"]["lower"] for one in columns)
        high_fence = max(one["fences"]["upper"] for one in columns)
        # A fence is the limit where values lie beyond it, and where it is nearer.
        if low_fence > low or high_fence < high:
            how = "the nearer of Tukey's outer fences and as far beyond the range seen as its tails say"
        low, high = max(low, low_fence), min(high, high_fence)
        inside = [
            (one["count"] - one["fences"]["below"] - one["fences"]["above"], one["count"] + one["infinite"])
            for one in columns
        ]
    negative = any(one["negatives"] for one in columns)
    low, high = outward(low if negative else max(low, 0.0), high, whole=whole)
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    total = sum(one["count"] for one in columns)
    reason = f"{how}; {_number(seen[0])} to {_number(seen[1])} seen in {total:,} values"
    if not negative and low == 0:
        reason += ", none negative"
    kwargs: dict[str, Any] = {"column": columns[-1]["name"], "min_value": low, "max_value": high}
    within, of = min(inside, key=lambda one: share_at_least(*one))
    if within < of:
        kwargs["mostly"] = _down(share_at_least(within, of))
        reason += f"; {_percent(1 - within / of)} outside in the profile with most"
        if kwargs["mostly"] <= 0:
            return
    yield _expect("expect_column_values_to_be_between", reason, "warning", **kwargs)


def _reach(one: Mapping[str, Any], near: str, far: str) -> float:
    """How far beyond the extreme seen the next ones may lie: see *ranges* in the module.

    The outer 5 % hold five times the outer 1 %, so their scale is the distance of both quantiles over ln 5;
    beyond the extreme seen lie exp(-reach / scale) values of as many rows again, on average.
    """
    tenth = 0.1 * (float(one["max"] - one["min"]) or abs(float(one["max"])) or 10.0)
    quantiles = one["quantiles"]
    if quantiles[near] is None or quantiles[far] is None:
        return tenth
    return max(tenth, abs(float(quantiles[far] - quantiles[near])) / math.log(5) * math.log(1 / TAIL_CHANCE))


def _mean(columns: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    means = [one["mean"] for one in columns if one["mean"] is not None and not one["infinite"]]
    if len(means) < max(SEVERAL, len(columns)):
        return
    low, high = natural_limits(means)
    low, high = outward(min(low, *means), max(high, *means), whole=False)
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    told = f"{_number(min(means))} to {_number(max(means))}"
    reason = f"natural limits of the means of {len(means)} profiles, {told}"
    yield _expect(
        "expect_column_mean_to_be_between", reason, "warning", column=columns[-1]["name"], min_value=low,
        max_value=high,
    )  # fmt: skip


def _lengths(columns: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    least, most = min(one["min_length"] for one in columns), max(one["max_length"] for one in columns)
    total = sum(one["count"] for one in columns)
    if total < KEY_ROWS:
        return
    if least == most:
        low, high, reason = least, most, f"every one of {total:,} texts has {most} characters"
    else:
        low, high = min(least, 1), math.ceil(1.5 * most)
        reason = f"{least} to {most} characters in {total:,} texts, and half as many again"
    yield _expect(
        "expect_column_value_lengths_to_be_between", reason, "warning", column=columns[-1]["name"],
        min_value=low, max_value=high,
    )  # fmt: skip


def _regex(columns: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    chosen: dict[str, str] = {}
    for one in columns:
        for shape in one["shapes"]["shapes"][:MOST_SHAPES]:
            if shape["regex"] is not None and shape["share"] >= (1 - SHAPE_SHARE) / MOST_SHAPES:
                chosen.setdefault(shape["regex"], shape["shape"])
    matched = [
        (
            sum(shape["count"] for shape in one["shapes"]["shapes"] if shape["regex"] in chosen),
            one["shapes"]["looked_at"],
        )
        for one in columns
    ]
    looked_at = sum(of for _, of in matched)
    if not chosen or len(chosen) > 2 * MOST_SHAPES or looked_at < KEY_ROWS:
        return
    within, of = min(matched, key=lambda one: share_at_least(*one))
    if within < SHAPE_SHARE * of:
        return
    kwargs: dict[str, Any] = {
        "column": columns[-1]["name"],
        "regex": f"^(?:{'|'.join(chosen)})$" if len(chosen) > 1 else f"^{next(iter(chosen))}$",
    }
    if within < of or not all(one["shapes"]["exact"] for one in columns):
        kwargs["mostly"] = _down(share_at_least(within, of))
        if kwargs["mostly"] <= 0:
            return
    reason = f"{_percent(within / of)} of {looked_at:,} texts look like {' or '.join(chosen.values())}"
    yield _expect("expect_column_values_to_match_regex", reason, "warning", **kwargs)


def _expect(kind: str, reason: str, severity: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs, "severity": severity, "meta": {"reason": reason}}


def _named(profile: Profile, name: str) -> Mapping[str, Any] | None:
    return next((one for one in profile["columns"] if one["name"] == name), None)


def _seen(profiles: Sequence[Profile]) -> str:
    named = [str(profile.get("dataset", "the data")) for profile in profiles]
    return named[0] if len(named) == 1 else f"{len(named)} profiles from {named[0]} to {named[-1]}"


def _down(share: float) -> float:
    """Rounded down to four digits, for ``mostly``."""
    return math.floor(share * 10_000) / 10_000


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if 0 < share < 0.995 else f"{100 * share:.4g} %"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _yaml(name: str, profiles: Sequence[Profile], found: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "# Suggested from profiles; it says what was usual, not what is right.",
        "# Review every expectation, strike out what is chance, and keep this file with your code.",
        "#",
        "# Suggested from:",
    ]
    for profile in profiles:
        named = profile.get("partitions")
        scope = (
            "all partitions"
            if named is None
            else ", ".join(named)
            if len(named) < 3
            else f"{len(named)} partitions"
        )
        known = f", profile {profile['record_id']}" if "record_id" in profile else ""
        lines.append(f"#   {profile.get('dataset', 'data')}: {profile['rows']:,} rows, {scope}{known}")
    if profiles[-1]["values"] != "full":
        lines += [
            "#",
            f"# The newest profile has no values of rows (values: {profiles[-1]['values']}): "
            "no sets of values are suggested.",
        ]
    if _partitions(profiles[-1]) > 1:
        lines += [
            "#",
            f"# The newest profile is of {_partitions(profiles[-1])} partitions together: no row count is "
            "suggested, and shares are of all.",
            "# For runs that look at one partition at a time: xops suggest TABLE --by-partition.",
        ]
    if sum(profile["rows"] for profile in profiles) < FEW_ROWS:
        lines += ["#", f"# Fewer than {FEW_ROWS} rows: nothing is suggested about columns."]
    body = yaml_text({"name": name, "expectations": [dict(one) for one in found]})
    return "\n".join(lines) + "\n" + body
