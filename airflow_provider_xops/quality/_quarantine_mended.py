"""Mended rows as somebody hands them in: typed like the table, each in the place that its number says.

Private to :mod:`airflow_provider_xops.quality.release`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.data.places import Place
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.digest import table_digest
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.schema import cast_batch, check_schema
from airflow_provider_xops.lake.tables import QUARANTINE_SUFFIX, own_table, ref_of
from airflow_provider_xops.quality._quarantine_rows import (
    BATCH,
    OWN_COLUMNS,
    RAW_VERSION,
    ROW,
    Bad,
    Mended,
)
from airflow_provider_xops.quality._quarantine_way import Name, Way
from airflow_provider_xops.records import digest_of

__all__ = ["as_released", "check_waiting", "not_released"]


def as_released(way: Way, waiting: Mapping[Name, Bad], rows: pa.Table | None) -> dict[Name, Mended]:
    """The rows by place, in the table's types, each place's under the digest that identifies this release.

    :param rows: None: all that wait, as they are.
    :raises ArgumentError: ``argument.rows``; :raises DataError: ``data.schema_mismatch``, ``data.cast``.
    """
    if rows is None:
        rows = _as_they_are(way, waiting)
    missing = [name for name in (ROW, BATCH) if name not in rows.column_names]
    if BATCH in missing and all(place.batch == "" for place in way.places):
        rows = rows.append_column(BATCH, pa.repeat(pa.scalar(""), rows.num_rows))
        missing.remove(BATCH)
    if missing:
        raise _bad_rows(
            f"the mended rows have no column {missing[0]}", "it says which row each of them replaces"
        )
    _check_version(way, rows)
    own = pa.schema([pa.field(ROW, pa.int64()), pa.field(BATCH, pa.string())])
    given = pa.schema([field for field in rows.schema if field.name not in OWN_COLUMNS])
    check_schema(given, way.schema, subject=f"table {way.table}", types=False)
    typed = [cast_batch(batch, pa.schema([*way.schema, *own])) for batch in rows.to_batches()]
    table = pa.Table.from_batches(typed, pa.schema([*way.schema, *own]))
    table = table.set_column(
        table.column_names.index(BATCH), BATCH, pc.fill_null(table.column(BATCH), "")
    ).sort_by(ROW)
    if not table.num_rows:
        raise _bad_rows("there is no row to release", "the file or table is empty")
    if table.column(ROW).null_count:
        raise _bad_rows(f"a mended row has no {ROW}", "it says which row it replaces")
    found = {}
    for place in way.places:
        mine = table.filter(pc.field(BATCH) == place.batch)
        if mine.num_rows:
            found[place.name] = _one(way, place, mine)
    if sum(len(each) for each in found.values()) < table.num_rows:
        raise _bad_rows("a mended row is of a batch that is not in quarantine", f"its {BATCH} says so")
    return found


def _check_version(way: Way, rows: pa.Table) -> None:
    """Rows of an older delivery have numbers too, of other rows."""
    if RAW_VERSION not in rows.column_names:
        return
    versions = [str(each) for each in pc.unique(rows.column(RAW_VERSION)).to_pylist()]
    if versions not in ([], [str(way.raw.version)]):
        raise _bad_rows(
            f"the mended rows are of raw version {', '.join(versions)}",
            f"what is in quarantine is of version {way.raw.version}",
        )


def _one(way: Way, place: Place, table: pa.Table) -> Mended:
    positions = table.column(ROW).to_numpy()
    if len(np.unique(positions)) < len(positions):
        raise _bad_rows("two mended rows have the same number", f"{ROW} must be unique")
    rows = table.select(way.schema.names).combine_chunks()
    numbered = rows.append_column(ROW, pa.array(positions, pa.int64()))
    digest = digest_of([way.origin(place), place.partition, place.batch, table_digest(numbered.to_reader())])
    return Mended(positions=positions, rows=rows, releases=1, names=frozenset([digest]))


def _as_they_are(way: Way, waiting: Mapping[Name, Bad]) -> pa.Table:
    """All that wait, unchanged."""
    name = f"{way.table}{QUARANTINE_SUFFIX}"
    ref = ref_of(way.lake, name, own_table(way.lake, name))
    rows = scan(way.lake, ref, partitions=way.partitions, columns=[*way.schema.names, ROW, BATCH]).read_all()
    chosen = [
        rows.filter((pc.field(BATCH) == batch) & pc.field(ROW).isin(pa.array(bad.positions, pa.int64())))
        for (_partition, batch), bad in waiting.items()
    ]
    return pa.concat_tables(chosen)


def not_released(
    new: Mapping[Name, Mended], waiting: Mapping[Name, Bad], mended: Mapping[Name, Mended]
) -> dict[Name, Mended]:
    """Those of ``new`` that are still to be released.

    A release that was made before is known by its digest. If its rows wait again, because other checks have
    refused them since, it is another release.
    """
    found = {}
    for name, each in new.items():
        if each.names <= mended[name].names:
            if not np.isin(each.positions, waiting[name].positions).any():
                continue
            again = digest_of([*each.names, mended[name].digest])
            each = dataclasses.replace(each, names=frozenset([again]))
        found[name] = each
    return found


def check_waiting(waiting: Mapping[Name, Bad], fresh: Mapping[Name, Mended]) -> None:
    """Nothing, if all of ``fresh`` wait.

    :raises ArgumentError: ``argument.rows``.
    """
    for name, each in fresh.items():
        strange = each.positions[~np.isin(each.positions, waiting[name].positions)]
        if len(strange):
            raise _bad_rows(
                f"{len(strange)} of {len(each)} mended rows are not in quarantine,"
                f" number {int(strange[0])} of partition {name[0]} for example",
                "they were released before, or never set aside",
            )


def _bad_rows(what: str, why: str) -> ArgumentError:
    return ArgumentError(
        what, code="argument.rows", why=why, todo="mend a fresh export (`xops quarantine export`)"
    )
