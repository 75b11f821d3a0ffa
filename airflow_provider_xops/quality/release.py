"""Mended rows brought back from the quarantine to where they were.

For ``xops quarantine release`` and notebooks::

    release(lake, "flights", partition="2013-01-01", rows=mended, suite="my_project.suites:flights",
            reason="carrier confirmed the delay", actor=me, as_of=now)

``mended`` has the table's columns and ``_xops_row``, the number under which each row is in quarantine. The
suite looks at the accepted rows with the mended ones among them; if one of these breaks a critical row-level
check, nothing is written. Else they are kept in ``<table>__released``, and from that moment on they stand in
for the raw rows of the same numbers, whatever is run again: the accepted version and the quarantine are made
anew from the raw version and all releases of it. A corrected *file* replaces raw rows, mended or not.

Rows that were right all along, and the suite wrong: correct the suite, then release them as they are
(``rows=None``), or clear the task that validated. No row passes a suite that it breaks.

What it does not do: publish. The report it gives is the one to publish.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, NotFoundError, Superseded, ValidationError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import (
    QUARANTINE_SUFFIX,
    RELEASED_SUFFIX,
    base_name,
    check_table_name,
    own_table,
    segments_of,
)
from airflow_provider_xops.quality.engine import Engine, get_engine, is_row_level
from airflow_provider_xops.quality.quarantine import record_of, write_standing
from airflow_provider_xops.quality.suites import LoadedSuite, load_suite
from airflow_provider_xops.quality.validate import validate
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    Outcome,
    QuarantineReport,
    Severity,
    ValidationReport,
    WriteMode,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from airflow_provider_xops.data.places import Place
    from airflow_provider_xops.quality._quarantine_rows import Bad, Mended
    from airflow_provider_xops.quality._quarantine_way import Held, Name, Way

__all__ = ["Released", "release"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Released:
    """What came of a release.

    :param rows: how many rows it released, or, dry, would.
    :param remaining: how many rows of the partition stay in quarantine.
    :param report: about the accepted version with them; None of a dry run.
    """

    rows: int
    remaining: int
    report: ValidationReport | None = None
    record: QuarantineReport | None = None


def release(
    lake: Lake,
    table: str,
    *,
    partition: str,
    rows: pa.Table | None,
    suite: str | Callable[[], Any],
    engine: str = "duckdb",
    reason: str,
    actor: Actor,
    as_of: datetime,
    dry_run: bool = False,
    data_docs: bool = True,
) -> Released:
    """Bring mended rows of one partition back among the accepted ones.

    :param table: the published table's name.
    :param rows: the mended rows: ``_xops_row`` (of an append table ``_xops_batch`` too) and the table's
        columns, in any order; further columns of ours are not looked at. None: all that are in quarantine, as
        they are.
    :param suite: what they must pass; the corrected one, if it was the suite that was wrong.
    :param reason: why, for the record.
    :param dry_run: look at everything, write nothing.
    :param data_docs: write Great Expectations' own page about the accepted rows too.
    :return: with the report about the accepted version, for publishing. Released before, what is there.
    :raises ValidationError: ``validation.release_refused``: a row breaks a critical row-level check, or a
        check errored; nothing was written.
    :raises ArgumentError: ``argument.rows``: a number that is not in quarantine, twice, or missing;
        ``argument.reason``; ``argument.too_many_releases``.
    :raises NotFoundError: ``not_found.quarantined``: the partition has nothing in quarantine.
    :raises DataError: the columns or types are not the table's.
    :raises Superseded: newer raw data of the partition have been parted, or have passed.
    """
    from airflow_provider_xops.quality._quarantine_mended import as_released, check_waiting, not_released
    from airflow_provider_xops.quality._quarantine_tables import countable, settle

    if not reason.strip():
        raise ArgumentError("a release needs a reason", code="argument.reason", todo="say why in a sentence")
    loaded = load_suite(suite)
    base = base_name(check_table_name(table))
    way, waiting, mended, reports = _open(lake, base, partition)
    if rows is None and not any(map(len, waiting.values())) and any(map(len, mended.values())):
        new = {}  # as they were released before
    else:
        new = as_released(way, waiting, rows)
    fresh = not_released(new, waiting, mended)
    check_waiting(waiting, fresh)
    for place in way.places:
        if place.name in fresh:
            countable(mended[place.name].releases + 1, partition)
    after = {name: _merged(way, mended[name], fresh.get(name)) for name in mended}
    left = {
        name: bad.without(fresh[name].positions) if name in fresh else bad for name, bad in waiting.items()
    }
    remaining = sum(len(each) for each in left.values())
    count = sum(len(each) for each in new.values())
    if fresh:
        _judge(way, after, left, fresh, loaded, get_engine(engine))
    if dry_run:
        return Released(rows=count, remaining=remaining)
    for name, each in fresh.items():
        _keep(way, name, each, reports, reason, actor, as_of)

    parted_by = _suite_digests(lake, reports)

    def checks(place: Place, held: Held | None) -> str:
        if held is None or held.mark is None or held.mark.origin != way.origin(place):
            raise Superseded(
                f"newer raw data of partition {partition} of table {base} have arrived",
                code="superseded.release",
                todo="look at `xops quarantine list` again",
            )
        # Other checks than those that parted it have let rows in: whoever asks those again must look again.
        judges = "" if loaded.digest in parted_by else f"+{loaded.digest[:16]}"
        return held.mark.checks if judges in held.mark.checks else held.mark.checks + judges

    settled = settle(
        way, checks=checks, find=None, guard=lambda bad: None, suite=f"{loaded.name} {loaded.digest[:16]}",
        reports=reports, actor=actor, as_of=as_of, note=reason,
    )  # fmt: skip
    report = validate(
        lake,
        settled.accepted.ref,
        suite=suite,
        partitions=[partition],
        engine=engine,
        data_docs=data_docs,
        actor=actor,
        as_of=as_of,
    )
    record = record_of(
        way, settled, loaded, action="released", validation=next(iter(reports), ""), judged=report,
        released_rows=count, reason=reason, actor=actor, as_of=as_of,
    )  # fmt: skip
    log.info(
        "Released %d rows of partition %s of table %s; %d stay in quarantine.",
        count, partition, base, record.quarantined_rows,
    )  # fmt: skip
    return Released(rows=count, remaining=record.quarantined_rows, report=report, record=record)


def _open(
    lake: Lake, base: str, partition: str
) -> tuple[Way, dict[Name, Bad], dict[Name, Mended], tuple[str, ...]]:
    """The raw version that the partition's quarantine is of, what waits there, and what was mended before."""
    import dataclasses

    from airflow_provider_xops.quality._quarantine_way import (
        held_places,
        mended_rows,
        open_way,
        waiting_rows,
    )

    raw = _raw_of(lake, f"{base}{QUARANTINE_SUFFIX}", partition)
    way = open_way(lake, raw, [partition])
    held = held_places(way, QUARANTINE_SUFFIX)
    places = tuple(
        place
        for place in way.places
        if (here := held.get(place.name)) and here.mark and here.mark.origin == way.origin(place)
    )
    if not places:
        raise _not_there(base, partition)
    way = dataclasses.replace(way, places=places)
    mended = mended_rows(way)
    # Of a release that was not finished too: its rows wait no longer.
    waiting = {place.name: waiting_rows(way, held[place.name], place, mended[place.name]) for place in places}
    reports = tuple(dict.fromkeys(each for place in places for each in held[place.name].reports))
    return way, waiting, mended, reports


def _raw_of(lake: Lake, name: str, partition: str) -> DatasetRef:
    """The newest raw version that places of the partition were parted from."""
    from airflow_provider_xops.data.places import Mark, said_of
    from airflow_provider_xops.lake.history import find_commit

    handle = own_table(lake, name)
    found: list[DatasetRef] = []
    commits: dict[int, dict[str, Any] | None] = {}
    for file in segments_of(handle) if handle is not None else ():
        if file.partition == partition:
            _version, metadata = find_commit(lake, handle, table=name, file=file, known=commits)
            if Mark.read(said_of(metadata, file)["fingerprint"]) is not None:
                found.append(DatasetRef(**metadata["parents"][0]))
    if not found:
        raise _not_there(base_name(name), partition)
    return max(found, key=lambda ref: ref.version)


def _suite_digests(lake: Lake, reports: tuple[str, ...]) -> set[str]:
    """The suites of these reports, as far as they are in the evidence."""
    found = set()
    for record_id in reports:
        try:
            report = lake.evidence.get(ValidationReport.kind, record_id)
        except NotFoundError:
            continue
        found.add(report.suite_digest if isinstance(report, ValidationReport) else "")
    return found


def _not_there(base: str, partition: str) -> NotFoundError:
    return NotFoundError(
        f"no row of partition {partition} of table {base} is in quarantine",
        code="not_found.quarantined",
        todo="see `xops quarantine list`",
    )


def _merged(way: Way, before: Mended, new: Mended | None) -> Mended:
    """The mended rows of earlier releases with the new ones; where both have a row, the new one."""
    import dataclasses

    import numpy as np
    import pyarrow as pa

    if new is None:
        return before
    old = ~np.isin(before.positions, new.positions)
    positions = np.concatenate([before.positions[old], new.positions])
    rows = pa.concat_tables([before.rows.filter(pa.array(old)), new.rows])
    order = np.argsort(positions, kind="stable")
    return dataclasses.replace(
        before, positions=positions[order], rows=rows.take(pa.array(order)).combine_chunks()
    )


def _judge(
    way: Way,
    mended: Mapping[Name, Mended],
    left: Mapping[Name, Bad],
    fresh: Mapping[Name, Mended],
    suite: LoadedSuite,
    engine: Engine,
) -> None:
    """Nothing if the suite lets the new rows in, looked at among all that would be accepted."""
    import numpy as np

    from airflow_provider_xops.quality.frames import FileFrame

    with way.lake.storage.scratch() as scratch:
        path = scratch / "rows.parquet"
        write_standing(way, mended, left, path)
        frame = FileFrame(path)
        results = engine.run(suite.checks, frame).results
        errored = [result for result in results if result.outcome is Outcome.ERRORED]
        failed = [
            result.check
            for result in results
            if result.outcome is Outcome.FAILED
            and result.check.severity is Severity.CRITICAL
            and is_row_level(result.check)
        ]
        broken = engine.unexpected_rows(failed, frame) if failed else []
    new = _positions_among_accepted(way, left, fresh)
    refused = {
        f"{check.type} on {check.column}": count
        for check, rows in zip(failed, broken, strict=True)
        if (count := int(np.isin(rows, new).sum()))
    }
    if errored or refused:
        lines = [f"{result.check.type} errored ({result.message})" for result in errored]
        lines += [f"{name}: {count} of them" for name, count in refused.items()]
        raise ValidationError(
            f"{sum(len(each) for each in fresh.values())} rows of table {way.table} are not released:"
            f" they do not pass suite {suite.name}",
            code="validation.release_refused",
            why="; ".join(lines),
            todo="mend them further; if they are right, correct the suite",
            context={"refused": refused, "errored": len(errored)},
        )


def _positions_among_accepted(way: Way, left: Mapping[Name, Bad], fresh: Mapping[Name, Mended]) -> Any:
    """Where the new rows stand when those that stay in quarantine are left out."""
    import numpy as np

    found, start = [np.empty(0, np.int64)], 0
    for place in way.places:
        stays = left[place.name].positions
        if place.name in fresh:
            positions = fresh[place.name].positions
            found.append(start + positions - np.searchsorted(stays, positions))
        start += place.rows - len(stays)
    return np.concatenate(found)


def _keep(
    way: Way, name: Name, new: Mended, reports: tuple[str, ...], reason: str, actor: Actor, as_of: datetime
) -> None:
    """From here on the release is made: whatever is run again has these rows."""
    import pyarrow as pa

    from airflow_provider_xops.lake.commit import Segment, commit
    from airflow_provider_xops.quality._quarantine_rows import released_schema
    from airflow_provider_xops.quality._quarantine_tables import AS_RAW

    (digest,) = new.names
    place = next(place for place in way.places if place.name == name)
    schema = released_schema(way.schema)
    ours = [
        pa.array(new.positions, pa.int64()),
        *(pa.repeat(pa.scalar(text), len(new)) for text in (place.batch, way.origin(place), digest)),
    ]
    columns = [*new.rows.columns, *ours]
    commit(
        way.lake,
        f"{way.table}{RELEASED_SUFFIX}",
        [
            Segment(
                partition=place.partition,
                fingerprint=f"release:{digest}",
                data=lambda: pa.Table.from_arrays(columns, schema=schema).to_reader(),
                batch_id=f"release:{digest}",
            )
        ],
        mode=WriteMode.APPEND,
        order_by=(),
        schema=schema,
        evolve=AS_RAW,
        parents=[way.raw],
        parent_partitions=[[place.partition]],
        parent_records=reports,
        actor=actor,
        as_of=as_of,
        note=reason,
    )
