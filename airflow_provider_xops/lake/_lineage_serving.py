"""Online predictions in a trace: the session that gave one, and whether its row is in the log.

For :mod:`airflow_provider_xops.lake._lineage_walk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.compute as pc

from airflow_provider_xops.errors import LakeError, NotFoundError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake._lineage_graph import Node, moment_text, short, written
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import PARTITION_COLUMN
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import DatasetRef, ServingSession

__all__ = ["LogRow", "log_row", "online_prediction_node", "session_node"]

# What a table that was removed or cleaned up says; a damaged one is not as good as gone.
_GONE = frozenset({"lake.missing_file", "lake.not_found"})
_FACTS = ("at", "variant", "shadow_of", "error")


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """Where the log has a prediction, and how it came about. No value of the row."""

    dataset: DatasetRef
    partition: str
    at: datetime | None
    variant: str | None
    shadow_of: str | None
    error: str | None


def log_row(lake: Lake, session: ServingSession, prediction_id: str) -> LogRow | None:
    """The log's row of one prediction of a session; None where the log does not have it."""
    if session.log_table is None:
        return None
    since = f"{session.started_at.astimezone(UTC):%Y-%m-%d}"
    try:
        ref = head(lake, session.log_table)
        days = [day for day in read.partitions(lake, ref) if day >= since]
        there = set(read.schema_of(lake, ref).names)
        if not days or "prediction_id" not in there:
            return None
        found = read.scan(
            lake, ref, partitions=days, columns=[name for name in _FACTS if name in there],
            filter=pc.field("prediction_id") == prediction_id, with_partition=True,
        ).read_all().to_pylist()  # fmt: skip
    except NotFoundError:
        return None
    except LakeError as error:
        if error.code not in _GONE:
            raise
        return None
    if not found:
        return None
    facts = {name: found[0].get(name) for name in _FACTS}
    return LogRow(dataset=ref, partition=found[0][PARTITION_COLUMN], **facts)


def session_node(session: ServingSession) -> Node:
    """One model version in the memory of one server."""
    facts = (
        ("server", session.server),
        ("alias", session.alias or "none: the version was named"),
        ("since", moment_text(session.started_at)),
        ("log", session.log_table or "none: its predictions are not kept"),
        *written(session, "recorded"),
    )
    return Node(
        f"session:{session.record_id}",
        "session",
        f"serving session {short(session.record_id)} on {session.server}",
        facts,
        record=session.to_json(),
    )


def online_prediction_node(
    prediction_id: str, number: int, session: ServingSession, row: LogRow | None
) -> Node:
    """One prediction that a server gave; without its row in the log it says so, and the chain still holds."""
    facts = [("number", f"{number:,} of its session (counted from 0)")]
    missing = ""
    if row is not None:
        facts.append(("stored in", f"{row.dataset}, partition {row.partition}"))
        if row.at is not None:
            facts.append(("answered", moment_text(row.at)))
        if row.variant:
            facts.append(("variant", row.variant))
        if row.shadow_of:
            facts.append(("shadow of", row.shadow_of))
        if row.error:
            facts.append(("answer", f"none: {row.error}"))
    elif session.log_table is None:
        facts.append(("stored in", "nothing: its server kept no log"))
    else:
        missing = (
            f"its row is not in {session.log_table}: not written yet, dropped for lack of room, lost with its"
            " server, or never given"
        )
    return Node(
        f"prediction:{prediction_id}", "prediction", f"prediction {prediction_id}", tuple(facts), missing
    )
