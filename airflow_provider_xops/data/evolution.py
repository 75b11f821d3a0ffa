"""Files of other columns than the recorded ones: what changed, in words, and how to read them.

For :func:`~airflow_provider_xops.data.ingest.ingest` with ``on_schema_change``. Names are looked at first,
which costs a header; only where they differ are the files read for types.

Whether a column was renamed cannot be seen; that it probably was is said where one column went, one came, and
both have the same type.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_xops.data.schema_changes import compare_schemas
from airflow_provider_xops.data.source_csv import text_batches
from airflow_provider_xops.data.source_parquet import parquet_schema
from airflow_provider_xops.data.sources import SourceFormat, SourceReader, infer_schema
from airflow_provider_xops.errors import DataError
from airflow_provider_xops.lake.schema import SchemaPolicy
from airflow_provider_xops.records import SchemaChange

__all__ = ["columns_to_read", "probable_renames"]

log = logging.getLogger(__name__)


def columns_to_read(
    recorded: Mapping[str, str], readers: Sequence[SourceReader], policy: SchemaPolicy, *, table: str
) -> dict[str, str]:
    """The columns (type texts) under which files that go together are read.

    :param recorded: the table's columns.
    :return: those of them that the files have, in the table's order, then new ones.
    :raises DataError: ``data.schema_changed``: the policy does not let a change pass; nothing was loaded.
    :raises SourceError: the files are not of one kind, or cannot be read.
    """
    found = _names(readers)
    if found is None or set(found) == set(recorded):
        return dict(recorded)
    kinds = infer_schema(readers)
    new = {name: kind for name, kind in kinds.items() if name not in recorded}
    gone = [name for name in recorded if name not in kinds]
    verdicts = {
        "added": "fail" if policy.added == "fail" else "warn",
        "removed": "fail" if policy.removed == "fail" else "warn",
        "renamed": "warn",
    }
    # Values of columns that stay are converted to the recorded type, so their types are not compared.
    before = [(name, kinds.get(name, kind)) for name, kind in recorded.items()]
    changes = compare_schemas(before, list(kinds.items()), policy=verdicts)
    hint = probable_renames({name: recorded[name] for name in gone}, new)
    refused = [change for change in changes if change.verdict == "fail"]
    words = _words(changes, hint)
    if refused:
        raise DataError(
            f"the columns of {readers[0].source_file.name} are not those of table {table}: {words}",
            code="data.schema_changed",
            why="on_schema_change does not let every change pass",
            todo="correct the source; or say on_schema_change: added evolve or ignore, removed fill_null",
            context={
                "added": list(new),
                "removed": gone,
                "probably_renamed": [list(pair) for pair in hint.items()],
            },
        )
    log.warning("The columns of table %s changed: %s.", table, words)
    return {**{name: kind for name, kind in recorded.items() if name in kinds}, **new}


def probable_renames(gone: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Old name to new name, for each type that exactly one column of each side has.

    >>> probable_renames({"dep": "float64"}, {"departure": "float64", "n": "int64"})
    {'dep': 'departure'}
    """
    found = {}
    for kind in set(gone.values()):
        old = [name for name, each in gone.items() if each == kind]
        candidates = [name for name, each in new.items() if each == kind]
        if len(old) == len(candidates) == 1:
            found[old[0]] = candidates[0]
    return dict(sorted(found.items()))


def _names(readers: Sequence[SourceReader]) -> list[str] | None:
    """The columns of the files; None where only all of their rows say, or the files differ."""
    found: list[list[str]] = []
    for reader in readers:
        if reader.format is SourceFormat.PARQUET:
            schema = parquet_schema(reader.bytes, scratch=reader.scratch)
            names = None if schema is None else list(schema.names)
        elif reader.format is SourceFormat.CSV:
            first: Any = next(iter(text_batches(reader.bytes, dialect=reader.dialect)), None)
            names = None if first is None else list(first.schema.names)
        else:
            names = list(infer_schema([reader])) or None
        if names is not None:  # a file without rows says nothing
            found.append(names)
    return found[0] if found else None


def _words(changes: Sequence[SchemaChange], renames: Mapping[str, str]) -> str:
    said = [f"{change.column!r} was {change.change}" for change in changes]
    return ", ".join([*said, *(f"{old!r} is probably {new!r} now" for old, new in renames.items())])
