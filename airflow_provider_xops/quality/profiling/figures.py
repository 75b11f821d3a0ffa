"""The figures of each column, by DuckDB: counts, moments, distinct values, quantiles, histograms, lengths.

For profiles. What is exact and what is approximate, by default:

* counts, minimum, maximum, mean, standard deviation, lengths, histogram: exact, in one scan of all columns
  (the histogram in a second one, because its range must be known).
* distinct values, values that occur once, the most frequent values: exact, by grouping each column, which
  spills to disk; above :attr:`Limits.exact_distinct` (by a HyperLogLog sketch) the sketch's figure, with a
  relative standard error of about 3 % (measured; DuckDB states none), and exact counts of the values that a
  space-saving sketch (Metwally, Agrawal, El Abbadi 2005) thinks frequent.
* quantiles: exact up to :attr:`Limits.exact_quantiles` rows (NumPy's default, linear interpolation: Hyndman
  and Fan 1996, type 7), above by a t-digest (Dunning and Ertl 2019), within about 1 % of rank.

Histogram bins are of equal width, 5 to 50 of them by the rule of Freedman and Diaconis (1981), 20 where it
has no answer, over the range without what lies outside Tukey's outer fences (1977: three times the
interquartile range beyond the quartiles); how much lies outside is counted.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_xops.quality.profiling._columns import Column, Kind, Session

__all__ = ["PROBABILITIES", "Limits", "column_figures", "iso"]

PROBABILITIES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SKETCH_ERROR = "HyperLogLog, relative standard error about 3 %"
DIGEST_ERROR = "t-digest, within about 1 % of rank"
FENCE = 3.0
MIN_BINS, MAX_BINS, DEFAULT_BINS = 5, 50, 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where exact figures end and approximate ones begin.

    :param exact_distinct: distinct values of a column that are still counted one by one.
    :param exact_quantiles: rows up to which quantiles are exact; they take 8 bytes a row while computed.
    :param top: how many of the most frequent values are counted.
    :param sample: rows of the random sample that shapes and rank correlations are taken from.
    """

    exact_distinct: int = 10_000_000
    exact_quantiles: int = 5_000_000
    top: int = 50
    sample: int = 10_000


def column_figures(session: Session, *, rows: int, limits: Limits) -> list[dict[str, Any]]:
    """The figures of each column, in order; ``_top`` has the most frequent values themselves, for whoever
    may show them."""
    figures = [_of_type(column) for column in session.columns]
    _count(session, figures, rows)
    for column, found in zip(session.columns, figures, strict=True):
        if column.is_scalar and column.kind is not Kind.BOOLEAN:
            _distinct(session, column, found, limits)
    _quantiles(session, figures, rows=rows, limits=limits)
    _histograms(session, figures)
    for found in figures:
        if found["kind"] in (Kind.DATE, Kind.TIMESTAMP):
            _as_times(found)
    return figures


def iso(microseconds: float | None, *, date: bool) -> str | None:
    """A time as text; None for one that the calendar does not have."""
    if microseconds is None:
        return None
    try:
        moment = _EPOCH + timedelta(microseconds=int(microseconds))
    except OverflowError:
        return None
    return moment.date().isoformat() if date else moment.isoformat()


def _of_type(column: Column) -> dict[str, Any]:
    return {"name": column.name, "type": column.type, "kind": column.kind.value}


def _count(session: Session, figures: list[dict[str, Any]], rows: int) -> None:
    """Everything that one scan of all columns gives."""
    wanted = [(column, name, sql) for column in session.columns for name, sql in _counted(column).items()]
    answers = session.row([sql for _, _, sql in wanted])
    for (column, name, _), answer in zip(wanted, answers, strict=True):
        figures[column.position][name] = _plain(answer)
    for found in figures:
        found["nulls"] = rows - found.pop("present")
        found["null_share"] = found["nulls"] / rows if rows else None
        for name in ("nan", "infinite"):
            found.setdefault(name, 0)
        valid = rows - found["nulls"] - found["nan"] - found["infinite"]
        found["count"] = valid
        if found["kind"] == Kind.BOOLEAN:
            both = (found["true"] > 0) + (found["true"] < valid)
            found["distinct"] = {"value": both, "exact": True}
            found["true_share"] = found["true"] / valid if valid else None


def _counted(column: Column) -> dict[str, str]:
    c, r = column.c, column.r
    wanted = {"present": f"count({r})"}
    if column.is_float:
        wanted |= {"nan": f"count(*) FILTER (isnan({r}))", "infinite": f"count(*) FILTER (isinf({r}))"}
    if column.kind is Kind.NUMBER:
        mean = "avg" if column.is_whole else "favg"
        wanted |= {
            "min": f"min({c})",
            "max": f"max({c})",
            "mean": f"{mean}({c})",
            "sd": f"stddev_samp({c}::DOUBLE)",
            "zeros": f"count(*) FILTER ({c} = 0)",
            "negatives": f"count(*) FILTER ({c} < 0)",
        }
    if column.is_time:
        wanted |= {"min": f"min({c})", "max": f"max({c})"}
    if column.kind in (Kind.TEXT, Kind.BINARY):
        length = "length" if column.kind is Kind.TEXT else "octet_length"
        wanted |= {f"{what}_length": f"{sql}({length}({c}))" for what, sql in _LENGTHS.items()}
    if column.kind is Kind.TEXT:
        wanted["blank"] = f"count(*) FILTER (trim({c}) = '')"
    if column.kind is Kind.BOOLEAN:
        wanted["true"] = f"count(*) FILTER ({c})"
    elif column.is_scalar:
        wanted["_sketch"] = f"approx_count_distinct({c})"
    return wanted


_LENGTHS = {"min": "min", "mean": "avg", "max": "max"}


def _distinct(session: Session, column: Column, found: dict[str, Any], limits: Limits) -> None:
    sketched = found.pop("_sketch")
    c, count = column.c, found["count"]
    if min(sketched, count) <= limits.exact_distinct:
        # Of very many values those that occur once are no frequent ones, and most of the work.
        several = " FILTER (n > 1)" if sketched > 20 * limits.top else ""
        ((distinct, once, top),) = session.rows(
            f"SELECT count(*), count(*) FILTER (n = 1), max({{'n': n, 'v': v}}, {limits.top}){several} FROM "
            f"(SELECT {c} AS v, count(*) AS n FROM {{rows}} WHERE {c} IS NOT NULL GROUP BY 1)"
        )
        found["distinct"] = {"value": distinct, "exact": True}
        found["once"] = once
        frequent = [(one["v"], one["n"]) for one in top or ()]
    else:
        found["distinct"] = {"value": min(sketched, count), "exact": False, "error": SKETCH_ERROR}
        frequent = session.rows(
            f"SELECT {c}, count(*) FROM {{rows}} WHERE {c} IN "
            f"(SELECT unnest(approx_top_k({c}, {limits.top})) FROM {{rows}}) "
            f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {limits.top}"
        )
    found["unique_share"] = found["distinct"]["value"] / count if count else None
    # How often the most frequent values occur says nothing about which they are.
    found["top_counts"] = [n for _, n in frequent]
    found["_top"] = frequent


def _quantiles(session: Session, figures: list[dict[str, Any]], *, rows: int, limits: Limits) -> None:
    chosen = [
        column
        for column in session.columns
        if (column.kind is Kind.NUMBER or column.is_time) and figures[column.position]["count"]
    ]
    asked = ", ".join(map(str, PROBABILITIES))
    exact = rows <= limits.exact_quantiles
    if exact:
        # One after the other: only one column's values are held at a time.
        kinds = {True: "quantile_disc", False: "quantile_cont"}
        answers = [
            session.row([f"{kinds[column.is_time]}({_number(column)}, [{asked}])"])[0] for column in chosen
        ]
    else:
        answers = session.row([f"approx_quantile({_number(column)}, [{asked}])" for column in chosen])
    for column, values in zip(chosen, answers, strict=True):
        found = figures[column.position]
        found["quantiles"] = {
            _percent(p): _plain(value) for p, value in zip(PROBABILITIES, values, strict=True)
        }
        found["quantiles_exact"] = exact
        if not exact:
            found["quantiles_error"] = DIGEST_ERROR


def _histograms(session: Session, figures: list[dict[str, Any]]) -> None:
    chosen, wanted = [], []
    for column in session.columns:
        found = figures[column.position]
        if "quantiles" not in found:
            continue
        lower, upper = fences(found)
        edges, rule = _edges(found, column, lower, upper)
        if edges is None:
            continue
        # DuckDB counts up to and including a bound; a bin holds its lower edge, and the last one its upper.
        bounds = [math.nextafter(edge, -math.inf) for edge in edges[:-1]] + [edges[-1]]
        outside = (
            [f"count(*) FILTER ({column.c} < {_sql(lower)})", f"count(*) FILTER ({column.c} > {_sql(upper)})"]
            if lower is not None and upper is not None
            else ["0", "0"]
        )
        # As floats: of whole numbers it would round the bounds, and say them otherwise than they were asked.
        wanted += [f"histogram({column.c}::DOUBLE, [{', '.join(map(_sql, bounds))}])", *outside]
        chosen.append((found, edges, bounds, rule, lower, upper))
    answers = session.row(wanted)
    for position, (found, edges, bounds, rule, lower, upper) in enumerate(chosen):
        counted, below, above = answers[3 * position : 3 * position + 3]
        counts = [counted.get(bound, 0) for bound in bounds]
        found["histogram"] = {
            "edges": edges,
            "counts": counts[1:],
            "below": counts[0],
            "above": found["count"] - sum(counts),
            "rule": rule,
        }
        if lower is not None:
            found["fences"] = {"lower": lower, "upper": upper, "below": below, "above": above}


def fences(found: dict[str, Any]) -> tuple[float | None, float | None]:
    """Tukey's outer fences of a column of numbers; None where half of its values are one value."""
    quartiles = [found["quantiles"].get(name) for name in ("25", "75")]
    if found["kind"] != Kind.NUMBER or None in quartiles or not quartiles[1] > quartiles[0]:
        return None, None
    spread = quartiles[1] - quartiles[0]
    lower, upper = quartiles[0] - FENCE * spread, quartiles[1] + FENCE * spread
    return (lower, upper) if math.isfinite(lower) and math.isfinite(upper) else (None, None)


def _edges(
    found: dict[str, Any], column: Column, lower: float | None, upper: float | None
) -> tuple[list[float] | None, str]:
    low, high = found.get("min"), found.get("max")
    if low is None or high is None:
        return None, ""
    low, high = float(low), float(high)
    if lower is not None and upper is not None:
        low, high = max(low, lower), min(high, upper)
    rule = "one bin"
    bins = 1
    if high > low:
        bins, rule = DEFAULT_BINS, f"{DEFAULT_BINS} bins of equal width"
        spread = found["quantiles"]["75"] - found["quantiles"]["25"]
        width = 2 * spread / max(found["count"], 1) ** (1 / 3)
        if width > 0 and math.isfinite((high - low) / width):
            bins = max(MIN_BINS, min(MAX_BINS, math.ceil((high - low) / width)))
            rule = "Freedman-Diaconis" if MIN_BINS < bins < MAX_BINS else f"Freedman-Diaconis, at {bins} bins"
        if column.is_whole and high - low < MAX_BINS:
            bins = min(bins, int(high - low) + 1)  # a bin narrower than one whole number would stay empty
    step = (high - low) / bins
    edges = [low + step * position for position in range(bins)] + [high]
    if not math.isfinite(step) or any(after <= before for before, after in itertools.pairwise(edges)):
        edges = [low, high]  # too narrow, or too wide, for floats between
        rule = "one bin"
    return edges, rule


def _as_times(found: dict[str, Any]) -> None:
    """The microseconds of a column of times as text."""
    date = found["kind"] == Kind.DATE
    for name in ("min", "max"):
        found[name] = iso(found[name], date=date)
    found["quantiles"] = {name: iso(value, date=date) for name, value in found.get("quantiles", {}).items()}
    if "histogram" in found:
        found["histogram"]["edges"] = [iso(edge, date=False) for edge in found["histogram"]["edges"]]
    found["_top"] = [(iso(value, date=date), n) for value, n in found["_top"]]


def _number(column: Column) -> str:
    return column.c if column.is_time else f"{column.c}::DOUBLE"


def _percent(probability: float) -> str:
    return f"{probability * 100:g}"


def _sql(value: float) -> str:
    # With an exponent DuckDB reads it as a float; without one as a decimal, which is rounded twice.
    return f"{value:.17e}"


def _plain(value: Any) -> Any:
    """A number as JSON has it; None for NaN and infinities (a sum that no float holds)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
