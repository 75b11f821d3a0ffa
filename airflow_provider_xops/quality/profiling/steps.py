"""Preparation steps suggested from a profile, each with its reason, for review.

For :func:`~airflow_provider_xops.data.transform.transform` (``steps=``): plain mappings in the grammar of
:mod:`~airflow_provider_xops.data.preparation`, with every learned figure written down, so that running them
learns nothing::

    steps = suggest_steps(profile_document(lake, record))

The order is cast, deduplicate, drop, clip, impute, bin; each step may rely on those before it.

What it does not do: run anything, or suggest a join (one profile knows one table). A cleaner-looking table
is not a truer one: an outlier may be the finding. That is what the review is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_xops.quality.profiling._yaml import yaml_text
from airflow_provider_xops.quality.profiling.bounds import outward

__all__ = ["steps_text", "suggest_steps"]

CASTS = {
    "whole number": "int64",
    "decimal number": "float64",
    "date": "date",
    "time with offset": "timestamp",
}
CAST_SHARE = 0.99
KEY_SHARE = 0.99
MOST_MISSING = 0.3
MOST_CLIPPED = 0.01
FEW_ROWS = 30


def suggest_steps(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps that a profile suggests; none of fewer than :data:`FEW_ROWS` rows."""
    if document["rows"] < FEW_ROWS:
        return []
    found: list[dict[str, Any]] = []
    casts = {one["name"]: step for one in document["columns"] if (step := _cast(one)) is not None}
    found += casts.values()
    found += _deduplicate(document)
    found += _drop(document)
    gone = {*document["table"]["constant_columns"], *document["table"]["empty_columns"], *casts}
    numbers = [
        one
        for one in document["columns"]
        if one["kind"] == "number" and one["name"] not in gone and one["count"]
    ]
    found += [step for one in numbers for step in _clip(one)]
    found += [step for one in numbers for step in _impute(one, document["rows"])]
    found += [step for one in numbers for step in _bin(one)]
    return found


def steps_text(document: Mapping[str, Any], steps: Iterable[Mapping[str, Any]]) -> str:
    """Steps as YAML with a head that says where they come from."""
    known = f", profile {document['record_id']}" if "record_id" in document else ""
    head = (
        "# Suggested from a profile; review every step and strike out what is not meant.\n"
        f"# From {document.get('dataset', 'data')}: {document['rows']:,} rows{known}\n"
    )
    return head + yaml_text([dict(step) for step in steps])


def _cast(one: Mapping[str, Any]) -> dict[str, Any] | None:
    if one["kind"] != "text" or not one["count"]:
        return None
    looked_at = one["shapes"]["looked_at"]
    counts = {shape["shape"]: shape["count"] for shape in one["shapes"]["shapes"] if shape["form"]}
    numbers = counts.get("whole number", 0), counts.get("decimal number", 0)
    # Whole and decimal numbers together are decimal numbers.
    candidates = {**counts, "decimal number": sum(numbers) if numbers[1] else 0}
    for form, target in CASTS.items():
        share = candidates.get(form, 0) / looked_at
        if share >= CAST_SHARE:
            whole = share == 1 and one["shapes"]["exact"]
            told = f"{_percent(share)} of {looked_at:,} texts are a {form}"
            return {
                "step": "cast",
                "columns": {one["name"]: target},
                "on_error": "fail" if whole else "null",
                "reason": told if whole else f"{told}; the others become missing",
            }
    return None


def _deduplicate(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    table, rows = document["table"], document["rows"]
    duplicates = table["duplicate_rows"]["value"]
    if duplicates:
        yield {"step": "deduplicate", "reason": f"{duplicates:,} of {rows:,} rows are there again, whole"}
    if table["keys"]:
        return
    coverage = table["time_coverage"]
    for one in document["columns"]:
        share = one.get("unique_share") or 0.0
        repeated = rows - duplicates - (one.get("distinct") or {}).get("value", 0)
        if (
            coverage is not None
            and one["kind"] in ("text", "number")
            and one["type"] not in ("float", "double")
            and one["count"] == rows
            and one["distinct"]["exact"]
            and share >= KEY_SHARE
            and repeated > 0
        ):
            yield {
                "step": "deduplicate",
                "keys": [one["name"]],
                "order_by": [f"{coverage['column']} desc"],
                "reason": f"{_percent(share)} of the values of {one['name']} are different, "
                f"{repeated:,} rows repeat one; the latest by {coverage['column']} stays",
            }
            return


def _drop(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    table = document["table"]
    names = [*table["constant_columns"], *table["empty_columns"]]
    if names and len(names) < len(document["columns"]):
        reason = f"the same value in all of {document['rows']:,} rows, or none: {', '.join(names)}"
        yield {"step": "drop", "columns": names, "reason": reason}


def _clip(one: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    outside = _outside(one)
    if 0 < outside <= MOST_CLIPPED:
        fences = one["fences"]
        low, high = outward(fences["lower"], fences["upper"], whole="int" in one["type"])
        limits = {"lower": low} if fences["below"] else {}
        limits |= {"upper": high} if fences["above"] else {}
        count = fences["below"] + fences["above"]
        yield {
            "step": "clip",
            "columns": {one["name"]: limits},
            "reason": f"{count:,} values ({_percent(outside)}) lie beyond Tukey's outer fences",
        }


def _impute(one: Mapping[str, Any], rows: int) -> Iterable[dict[str, Any]]:
    missing = one["nulls"] + one["nan"]
    median = one.get("quantiles", {}).get("50")
    if 0 < missing <= MOST_MISSING * rows and median is not None and "decimal" not in one["type"]:
        value = round(median) if "int" in one["type"] else median
        yield {
            "step": "impute",
            "columns": {one["name"]: {"value": value}},
            "indicator": True,
            "reason": f"{missing:,} of {rows:,} missing ({_percent(missing / rows)}); "
            f"the median of the others is {value:g}",
        }


def _bin(one: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Where too much lies far out to be cut off."""
    outside = _outside(one)
    if outside <= MOST_CLIPPED:
        return
    whole = "int" in one["type"]
    inner = [one["quantiles"][name] for name in ("5", "25", "50", "75", "95")]
    edges = sorted({round(value) if whole else float(f"{value:.6g}") for value in inner if value is not None})
    if len(edges) > 1:
        yield {
            "step": "bin",
            "column": one["name"],
            "edges": [None, *edges, None],
            "reason": f"{_percent(outside)} lie beyond Tukey's outer fences, too many to clip; "
            "edges are the 5, 25, 50, 75 and 95 % quantiles",
        }


def _outside(one: Mapping[str, Any]) -> float:
    fences = one.get("fences")
    return (fences["below"] + fences["above"]) / one["count"] if fences and one["count"] else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share < 0.995 else f"{100 * share:.5g} %"
