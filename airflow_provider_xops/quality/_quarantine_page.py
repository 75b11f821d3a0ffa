"""A quarantine as a page: how many rows, of which partitions, for which reasons; never a value of a row.

Private to :mod:`airflow_provider_xops.quality.quarantine` and :mod:`~airflow_provider_xops.quality.release`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_provider_xops.quality.page import Html, facts_table, page, table
from airflow_provider_xops.records import QuarantineReport

__all__ = ["quarantine_html"]


def quarantine_html(
    record: QuarantineReport,
    partitions: Sequence[tuple[str, int, int]],
    documents: Mapping[str, str | None],
) -> bytes:
    """The page.

    :param partitions: name, raw rows and rows in quarantine of each.
    :param documents: what a report is called, and where its page is.
    """
    released = record.action == "released"
    subject = record.raw.table
    title = (
        f"{record.released_rows:,} rows of {subject} released"
        if released
        else f"{record.quarantined_rows:,} of {record.rows:,} rows of {subject} in quarantine"
    )
    share = record.quarantined_rows / record.rows if record.rows else 0.0
    facts = [
        ("Raw version", record.raw),
        ("Suite", f"{record.suite} (digest {record.suite_digest})"),
        ("Rows", f"{record.rows:,}"),
        ("Accepted", f"{record.accepted_rows:,} in {record.accepted}"),
        ("In quarantine", f"{record.quarantined_rows:,} ({share:.3%}) in {record.quarantine}"),
        ("Released", f"{record.released_rows:,}"),
        *((("Reason given", record.reason),) if record.reason else ()),
        ("Recorded", f"{record.recorded_at.isoformat()} by {record.produced_by.id}"),
        ("Record", record.record_id),
        *((name, uri) for name, uri in documents.items() if uri),
    ]
    reasons = table(("Check", "Rows"), list(record.reasons.items()))
    where = table(
        ("Partition", "Rows", "Accepted", "In quarantine"),
        [(name, rows, rows - bad, bad) for name, rows, bad in partitions],
    )
    return page(
        title,
        [
            facts_table(facts),
            "<h2>Why</h2>",
            reasons if record.reasons else Html("<p>Nothing is in quarantine.</p>"),
            Html('<p class="note">A row that breaks several checks counts for each of them.</p>'),
            "<h2>Partitions</h2>",
            where,
        ],
    )
