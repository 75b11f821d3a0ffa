"""The page of a profile: overview, schema changes, time coverage, every column, correlations.

For profiles. It shows what the document holds, so what the privacy policy let into it, and says which policy
that was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from typing import Any

from airflow_provider_xops.quality.page import Html, cell, facts_table, figure, page, table
from airflow_provider_xops.quality.profiling.charts import bars, matrix, share_bar
from airflow_provider_xops.records import DatasetProfile

__all__ = ["report_html"]

SHOWN_VALUES = 10
BUCKETS_DRAWN = 240
TIMELINE = 1000

_POLICIES = {
    "none": "no text of any row is shown",
    "masked": "texts of rows are shown by their shape only",
    "full": "the most frequent values of rows are shown",
}


def report_html(record: DatasetProfile, document: Mapping[str, Any]) -> bytes:
    """The page.

    :param document: the profile that the record is about.
    """
    columns, found = document["columns"], document["table"]
    body = [_facts(record, document), *_changes(record), _overview(columns)]
    body += [*_coverage(found["time_coverage"]), *_correlations(found["correlations"])]
    body += ["<h2>Columns</h2>", *(_column(place, one) for place, one in enumerate(columns))]
    return page(f"Profile of {record.dataset}", body)


def _facts(record: DatasetProfile, document: Mapping[str, Any]) -> Html:
    found = document["table"]
    duplicates = found["duplicate_rows"]
    facts = [
        ("Dataset", record.dataset),
        ("Partitions", "all" if record.partitions is None else ", ".join(record.partitions)),
        ("Rows", f"{record.rows:,}"),
        ("Columns", len(document["columns"])),
        (
            "Candidate keys",
            "; ".join(" + ".join(key) for key in found["keys"]) or "none of one or two columns",
        ),
        ("Duplicate rows", f"{duplicates['value']:,} ({duplicates['method']})"),
        ("Constant columns", ", ".join(found["constant_columns"]) or "none"),
        ("Empty columns", ", ".join(found["empty_columns"]) or "none"),
        ("Values", f"{document['values']}: {_POLICIES[document['values']]}"),
        ("Content digest", record.content_digest),
        ("Recorded", f"{record.recorded_at.isoformat()} by {record.produced_by.id}"),
        ("Record", record.record_id),
    ]
    if found["skipped_columns"]:
        facts.append(("Not looked at (mixed types)", ", ".join(found["skipped_columns"])))
    return facts_table(facts)


def _changes(record: DatasetProfile) -> Iterable[str]:
    yield "<h2>Schema changes</h2>"
    if record.previous is None:
        yield "<p>There is nothing to compare with.</p>"
    elif not record.schema_changes:
        yield f"<p>None against {escape(str(record.previous))}.</p>"
    else:
        guess = "A rename is a guess from the content of two profiles."
        yield f"<p>Against {escape(str(record.previous))}. {guess}</p>"
        yield table(
            ("Column", "Change", "Before", "After", "Verdict", "Remark"),
            (
                (
                    one.column,
                    one.change,
                    one.before,
                    one.after,
                    cell(one.verdict, f"o {one.verdict}"),
                    one.message,
                )
                for one in record.schema_changes
            ),
        )


def _overview(columns: Iterable[Mapping[str, Any]]) -> str:
    rows = (
        (
            Html(f'<a href="#c{place}">{escape(one["name"])}</a>'),
            cell(one["type"], "c"),
            share_bar(one["null_share"] or 0.0, label="missing"),
            _distinct(one),
            one.get("min"),
            one.get("max"),
        )
        for place, one in enumerate(columns)
    )
    return f"<h2>Overview</h2>{table(('Column', 'Type', 'Missing', 'Distinct', 'Least', 'Greatest'), rows)}"


def _column(place: int, one: Mapping[str, Any]) -> str:
    parts = [f'<h3 id="c{place}">{escape(one["name"])} <small>{escape(one["type"])}</small></h3>']
    histogram = one.get("histogram")
    if histogram:
        edges = histogram["edges"]
        parts.append(
            bars(
                histogram["counts"],
                left=_edge(edges[0]),
                right=_edge(edges[-1]),
                label=f"histogram of {one['name']}",
            )
        )
        outside = histogram["below"] + histogram["above"]
        note = f"{len(histogram['counts'])} bins: {histogram['rule']}."
        if outside:
            note += f" {histogram['below']:,} values lie below the chart and {histogram['above']:,} above."
        parts.append(f'<p class="note">{escape(note)}</p>')
    parts.append(facts_table(_figures(one)))
    if one.get("quantiles"):
        how = "exact" if one["quantiles_exact"] else one["quantiles_error"]
        parts.append(table([f"{name} %" for name in one["quantiles"]], [list(one["quantiles"].values())]))
        parts.append(f'<p class="note">Quantiles: {escape(how)}.</p>')
    parts += _shapes(one)
    if one.get("top_values"):
        parts.append(
            table(
                ("Most frequent values", "Rows", "Share"),
                (
                    (
                        str(value["value"]),
                        value["count"],
                        share_bar(value["count"] / one["count"], label="share"),
                    )
                    for value in one["top_values"][:SHOWN_VALUES]
                ),
            )
        )
    return "".join(parts)


def _shapes(one: Mapping[str, Any]) -> Iterable[str]:
    shapes = one.get("shapes")
    if not shapes or not shapes["looked_at"]:
        return
    rows = [
        (cell(shape["shape"], "c"), shape["count"], share_bar(shape["share"], label="share"))
        for shape in shapes["shapes"]
    ]
    if shapes["others"]:
        rows.append(
            (
                cell("others", "note"),
                shapes["others"],
                share_bar(shapes["others"] / shapes["looked_at"], label="share"),
            )
        )
    yield table(("Shape", "Values", "Share"), rows)
    looked = "all values" if shapes["exact"] else f"a random sample of {shapes['looked_at']:,} values"
    yield f'<p class="note">Shapes of {looked}: A, a a letter, 9 a digit, L another letter, + a run.</p>'


def _figures(one: Mapping[str, Any]) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("Missing", f"{one['nulls']:,} ({_percent(one['null_share'])})"),
        ("Distinct", _distinct(one)),
    ]
    if one["kind"] == "number":
        facts += [("Range", f"{figure(one['min'])} to {figure(one['max'])}")]
        facts += [("Mean, standard deviation", f"{figure(one['mean'])}, {figure(one['sd'])}")]
        facts += [("Zeros, negatives", f"{figure(one['zeros'])}, {figure(one['negatives'])}")]
        if one["nan"] or one["infinite"]:
            facts.append(("NaN, infinite", f"{one['nan']:,}, {one['infinite']:,}"))
        if "fences" in one:
            fences = one["fences"]
            facts.append(
                (
                    "Outside Tukey's outer fences",
                    f"{fences['below']:,} below {figure(fences['lower'])}, "
                    f"{fences['above']:,} above {figure(fences['upper'])}",
                )
            )
    elif one["kind"] in ("date", "timestamp"):
        facts.append(("Range", f"{one['min']} to {one['max']}"))
    elif one["kind"] == "boolean":
        facts.append(("True", f"{one['true']:,} ({_percent(one.get('true_share'))})"))
    elif one["kind"] in ("text", "binary") and one["count"]:
        facts.append(
            ("Length", f"{one['min_length']:,} to {one['max_length']:,}, mean {figure(one['mean_length'])}")
        )
        if one.get("blank"):
            facts.append(("Blank", f"{one['blank']:,}"))
        if "min_text" in one:
            facts.append(("First and last in order", f"{one['min_text']} … {one['max_text']}"))
    return facts


def _coverage(coverage: Mapping[str, Any] | None) -> Iterable[str]:
    if coverage is None:
        return
    unit = coverage["unit"]
    yield f"<h2>Time coverage: {escape(coverage['column'])}</h2>"
    yield bars(
        _timeline(coverage),
        left=_edge(coverage["start"]),
        right=_edge(coverage["end"]),
        label=f"rows by {unit}",
        width=TIMELINE,
    )
    missing = coverage["empty_buckets"]
    told = (
        f"{missing:,} {unit}s without a row"
        if missing is not None
        else f"the first {len(coverage['buckets']):,} {unit}s are shown"
    )
    yield f"<p>Rows by {unit} (UTC): {told}.</p>"
    if coverage["gaps"]:
        yield table(
            ("Nothing from", "to", f"{unit}s"),
            ((gap["from"], gap["to"], gap["length"]) for gap in coverage["gaps"]),
        )


def _timeline(coverage: Mapping[str, Any]) -> list[int]:
    """Counts on an even time axis, at most :data:`BUCKETS_DRAWN` bars."""
    seconds = {"hour": 3600, "day": 86400, "week": 604800}[coverage["unit"]]
    times = [datetime.fromisoformat(start).timestamp() for start, _ in coverage["buckets"]]
    places = [round((time - times[0]) / seconds) for time in times]
    each = places[-1] // BUCKETS_DRAWN + 1
    drawn = [0] * (places[-1] // each + 1)
    for place, (_, count) in zip(places, coverage["buckets"], strict=True):
        drawn[place // each] += count
    return drawn


def _correlations(found: Mapping[str, Any] | None) -> Iterable[str]:
    if found is None:
        return
    yield "<h2>Correlations</h2>"
    yield "<h3>Pearson</h3>" + matrix(found["columns"], found["pearson"], label="Pearson's correlations")
    how = (
        "of all rows" if found["spearman_exact"] else f"of a random sample of {found['spearman_rows']:,} rows"
    )
    yield f"<h3>Spearman <small>{how}</small></h3>"
    yield matrix(found["columns"], found["spearman"], label="Spearman's correlations")
    if found["left_out"]:
        yield f'<p class="note">{found["left_out"]} further columns of numbers are not shown.</p>'


def _distinct(one: Mapping[str, Any]) -> str:
    distinct = one.get("distinct")
    if distinct is None:
        return ""
    text = f"{distinct['value']:,}"
    if not distinct["exact"]:
        text += f" ({distinct['error']})"
    return text


def _percent(share: float | None) -> str:
    return "" if share is None else f"{figure(round(100 * share, 2))} %"


def _edge(value: Any) -> str:
    return value.replace("+00:00", "Z") if isinstance(value, str) else figure(value)
