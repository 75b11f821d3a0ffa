"""New files under a prefix into a raw table: each exactly once, by name and checksum.

For the ingest operator and notebooks::

    ingest_prefix(lake, "flights", PrefixSource(uri="/in/flights/", pattern="*.csv"), actor=me, as_of=now)

Each file is one batch in ``append`` mode: its id is its name below the prefix, its input fingerprint its
checksum and the way it is read. So the commit decides what was loaded, and it decides in the
same transaction that loads: the same name with the same content is never loaded twice, with another content
it replaces what it brought. All new files of a run are one commit.

So as not to read everything again in every run, size, time and tag of what was loaded are kept beside the
table (``_xops/prefixes/``). That is a note, not the truth: it is believed only where the table holds exactly
the batch it speaks of, and without it files are read again, and found loaded.

What it does not do: notice that a file was deleted, or see a change that leaves size, time and tag as they
were (``recheck`` reads all contents).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.data._prefix_listing import Found, listed_files, storage_errors
from airflow_provider_xops.data._prefix_notes import Notes
from airflow_provider_xops.data._prefix_store import LocalFolder, ObjectInfo, Store, shown
from airflow_provider_xops.data._spooling import Ingested, canonical_schema, one_of, spool
from airflow_provider_xops.data._sql_marks import newest_record
from airflow_provider_xops.data.column_types import declare, text_of
from airflow_provider_xops.data.declared_sources import PrefixSource
from airflow_provider_xops.data.ingest import ALL, load_segments, raw_name, recorded_schema
from airflow_provider_xops.data.sources import SourceReader, infer_schema, open_source
from airflow_provider_xops.errors import ArgumentError, NotFoundError, SourceError
from airflow_provider_xops.lake.commit import Segment
from airflow_provider_xops.lake.data_files import FileSegment, short_fingerprint
from airflow_provider_xops.lake.history import find_commit
from airflow_provider_xops.lake.tables import open_table, segments_of
from airflow_provider_xops.records import Actor, SourceFile, WriteMode, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_xops.lake.lake import Lake

__all__ = ["LocalFolder", "ObjectInfo", "Store", "ingest_prefix"]

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
NAMED = 20


def ingest_prefix(
    lake: Lake,
    table: str,
    source: PrefixSource,
    *,
    store: Callable[[str], Store] = LocalFolder,
    partitions: Sequence[str] = (ALL,),
    mode: WriteMode | str = WriteMode.APPEND,
    keys: Sequence[str] = (),
    schema: Mapping[str, str] | None = None,
    format: str | None = None,
    delimiter: str | None = None,
    na_values: Sequence[str] = ("", "NA"),
    actor: Actor,
    as_of: datetime,
) -> Ingested:
    """Load the files of a prefix that the table does not hold into ``<table>__raw``.

    :param store: gives the files below a URI; a local folder by default.
    :param partitions: the partitions to load; several need ``{partition}`` in the URI.
    :param mode: ``append``; fixed by the first load.
    :param format, delimiter, na_values, schema: as :func:`~airflow_provider_xops.data.ingest.ingest`.
    :param as_of: files younger than ``source.min_age`` then are left for the next run.
    :raises SourceError: ``source.bad_objects`` names every file that is not as declared: nothing was loaded.
    :raises UnavailableError: the storage did not answer (retryable).
    """
    raw = raw_name(table)
    _check(source, WriteMode(mode), partitions)
    known = dict(schema) if schema is not None else recorded_schema(lake, raw)
    texts = None if known is None else text_of(declare(known))
    how = _listing((format, delimiter, tuple(na_values)))
    listed = listed_files(source, store, partitions, as_of)
    notes, active = Notes(lake, raw, source), _active(lake, raw)
    done = [found for found in listed if not source.recheck and _is_done(found, notes, active, how)]
    known_done = set(done)
    waiting = [found for found in listed if found not in known_done]
    load = _Load(lake, raw, source, active, texts, (format, delimiter, tuple(na_values)))
    with lake.storage.scratch() as scratch:
        # What is bad, unsteady or loaded already takes nobody's place among the files of this run.
        while waiting and (source.max_objects is None or len(load.segments) < source.max_objects):
            more = None if source.max_objects is None else source.max_objects - len(load.segments)
            load.take(waiting[:more], scratch)
            waiting = [] if more is None else waiting[more:]
        _judge(source, load.bad, len(load.bad) + len(load.segments))
        figures = {
            "objects_listed": len(listed), "objects_left": len(waiting) + load.unsteady,
            "objects_loaded": len(load.segments), "objects_bad": len(load.bad),
        }  # fmt: skip
        log.info(
            "%s: %d files, %d new, %d loaded before, %d left for a later run, %d bad.", shown(source.uri),
            len(listed), len(load.segments), len(done) + len(load.same), figures["objects_left"],
            len(load.bad),
        )  # fmt: skip
        record, reused = None, True
        if load.segments:
            result = load_segments(
                lake, raw, list(load.segments.values()), texts=load.texts or {}, mode=mode, keys=keys,
                actor=actor, as_of=as_of,
            )  # fmt: skip
            record, reused = result.record, result.reused
        kept = [*done, *load.same, *load.segments]
        notes.write((found.root, found.info, load.sums.get(found)) for found in kept)
    if record is None:
        record = _newest(lake, raw, [*done, *load.same])
    return Ingested(record=record, reused=reused, notes=figures)


class _Load:
    """What one run makes of the files that it takes.

    :param texts: the columns; None until the first files taken have shown them.
    """

    def __init__(
        self,
        lake: Lake,
        raw: str,
        source: PrefixSource,
        active: Mapping[tuple[str, str], FileSegment],
        texts: Mapping[str, str] | None,
        how: tuple[str | None, str | None, tuple[str, ...]],
    ) -> None:
        self.lake, self.raw, self.source, self.active = lake, raw, source, active
        self.texts, self.how = texts, how
        self.segments: dict[Found, Segment] = {}
        self.same: list[Found] = []
        self.sums: dict[Found, str] = {}
        self.bad: dict[str, SourceError] = {}
        self.unsteady = 0

    def take(self, chosen: Sequence[Found], scratch: Path) -> None:
        copies, unsteady = _copied(chosen, scratch)
        self.unsteady += unsteady
        self.sums |= {found: file.sha256 for found, (_, file) in copies.items()}
        readers = {found: self._reader(path, file) for found, (path, file) in copies.items()}
        prints = {found: _fingerprint(found, self.sums[found], _listing(self.how)) for found in readers}
        same = [found for found in readers if _holds(self.active, found, prints[found])]
        self.same += same
        fresh = {found: reader for found, reader in readers.items() if found not in set(same)}
        if self.texts is None and readers:
            fresh = self._learn(fresh)
        for found, reader in fresh.items():
            _refuse_namesake(self.lake, self.raw, found, self.active)
            try:
                self.segments[found] = _segment(found, reader, prints[found], self.texts or {}, scratch)
            except SourceError as error:
                self.bad[found.info.name] = error

    def _learn(self, readers: dict[Found, SourceReader]) -> dict[Found, SourceReader]:
        """The columns of a first load; gives the files that can be read at all."""
        texts: dict[str, str] = {}
        try:
            texts = infer_schema(list(readers.values()))
        except SourceError:
            bad = {}
            for found, reader in readers.items():
                try:
                    infer_schema([reader])
                except SourceError as error:
                    bad[found] = error
            if not bad:
                raise  # each can be read, they do not go together
            self.bad |= {found.info.name: error for found, error in bad.items()}
            readers = {found: reader for found, reader in readers.items() if found not in bad}
            if self.source.on_bad_object == "fail" or not readers:
                return {}
            texts = infer_schema(list(readers.values()))
        if not texts:
            raise ArgumentError(
                f"the columns of table {self.raw} are not known", code="argument.schema_needed",
                why="this is its first load, and the files have no rows to learn from", todo="pass a schema",
            )  # fmt: skip
        log.info("Learned the columns of table %s from its files: %s.", self.raw, json.dumps(texts))
        self.texts = texts
        return readers

    def _reader(self, path: Path, file: SourceFile) -> SourceReader:
        format, delimiter, na_values = self.how
        reader = open_source(str(path), format=format, delimiter=delimiter, na_values=na_values)
        return replace(reader, source_file=file)


def _active(lake: Lake, raw: str) -> dict[tuple[str, str], FileSegment]:
    """The batches that the head of the table holds."""
    try:
        return {file.key: file for file in segments_of(open_table(lake, raw))}
    except NotFoundError:
        return {}


def _holds(active: Mapping[tuple[str, str], FileSegment], found: Found, fingerprint: str) -> bool:
    file = active.get(found.place)
    return file is not None and file.fingerprint32 == short_fingerprint(fingerprint)


def _is_done(
    found: Found,
    notes: Notes,
    active: Mapping[tuple[str, str], FileSegment],
    how: Sequence[Any],
) -> bool:
    checksum = notes.checksum(found.root, found.info)
    return checksum is not None and _holds(active, found, _fingerprint(found, checksum, how))


def _fingerprint(found: Found, checksum: str, how: Sequence[Any]) -> str:
    return digest_of(["prefix", found.batch_id, checksum, list(how)])


def _listing(how: tuple[str | None, str | None, tuple[str, ...]]) -> list[Any]:
    """How files are read, as the fingerprint has it."""
    return [*how[:2], list(how[2])]


def _copied(chosen: Sequence[Found], scratch: Path) -> tuple[dict[Found, tuple[Path, SourceFile]], int]:
    """The chosen files copied, so that what is hashed is what is read; and how many were still written to."""
    copies, unsteady = {}, 0
    for found in chosen:
        path = Path(tempfile.mkdtemp(prefix="object-", dir=scratch)) / found.info.name.rpartition("/")[2]
        checksum, size = hashlib.sha256(), 0
        with storage_errors(found.info.name):
            try:
                with found.store.open(found.info) as content, path.open("wb") as copy:
                    while block := content.read(CHUNK_BYTES):
                        checksum.update(block)
                        size += len(block)
                        copy.write(block)
                now = found.store.look(found.info)
            except FileNotFoundError:
                now = None
        if now is None or now.stamp != found.info.stamp or size != found.info.size:
            log.info("%s was still written to, or is gone: it waits for a later run.", found.info.name)
            unsteady += 1
            continue
        file = SourceFile(
            uri=found.info.uri,
            name=found.info.name,
            sha256=checksum.hexdigest(),
            size_bytes=size,
            modified_at=found.info.modified,
        )
        copies[found] = (path, file)
    return copies, unsteady


def _segment(
    found: Found, reader: SourceReader, fingerprint: str, texts: Mapping[str, str], scratch: Path
) -> Segment:
    """The file's rows, all of them read: whatever is wrong with it is known before anything is committed."""
    declared = declare(texts)
    batches = reader.with_schema(texts).reader()
    rows = spool(batches, canonical_schema(declared), scratch, order_by=None, subject=found.info.name)
    return Segment(found.partition, fingerprint, rows.reader, found.batch_id, (reader.source_file,))


def _judge(source: PrefixSource, bad: Mapping[str, SourceError], count: int) -> None:
    """:raises SourceError: ``source.bad_objects``, unless bad files are to be skipped."""
    named = [f"{name}: {error}" for name, error in list(bad.items())[:NAMED]]
    if bad and source.on_bad_object == "fail":
        raise SourceError(
            f"{len(bad)} of {count} new files under {shown(source.uri)} cannot be loaded",
            code="source.bad_objects", why=" | ".join(named),
            todo="correct or remove them; on_bad_object='skip' loads the others",
            context={"names": list(bad)[:NAMED], "count": len(bad)},
        )  # fmt: skip
    for text in named:
        log.warning("Skipped, to be tried again by the next run: %s", text)


def _refuse_namesake(
    lake: Lake, raw: str, found: Found, active: Mapping[tuple[str, str], FileSegment]
) -> None:
    """:raises ArgumentError: a file of the same name was loaded from another prefix."""
    file = active.get(found.place)
    if file is None:
        return
    _, metadata = find_commit(lake, open_table(lake, raw), table=raw, file=file)
    uris = [source["uri"] for source in metadata["sources"] if source["name"] == found.info.name]
    if uris and found.info.uri not in uris:
        raise ArgumentError(
            f"a file {found.info.name} was loaded into table {raw} from another place",
            code="argument.source",
            why=f"it came from {uris[0]}; this one would replace what that one brought",
            todo="pass a name to the PrefixSource to tell the two prefixes apart",
        )


def _newest(lake: Lake, raw: str, done: Sequence[Found]) -> Any:
    """The record of the newest version that brought one of these files."""
    if not done:
        return None
    handle = open_table(lake, raw)
    places = {found.place for found in done}
    files = [file for file in segments_of(handle) if file.key in places]
    newest = max(files, key=lambda file: file.since)
    return newest_record(lake, raw, [find_commit(lake, handle, table=raw, file=newest)[0]])


def _check(source: PrefixSource, mode: WriteMode, partitions: Sequence[str]) -> None:
    """:raises ArgumentError: arguments that do not go together."""
    one_of(source.on_bad_object, ("fail", "skip"), argument="on_bad_object")
    problem = ""
    if not source.uri.strip():
        problem = "its uri rendered to nothing"
    elif mode is not WriteMode.APPEND:
        problem = "each file is a batch: use mode append"
    elif len(partitions) > 1 and "{partition}" not in source.uri:
        problem = "several partitions would be read from the same prefix: write {partition} into the uri"
    elif source.max_objects is not None and source.max_objects < 1:
        problem = "max_objects must be at least 1"
    elif not isinstance(source.min_age, timedelta | int | float | None):
        problem = "min_age must be a timedelta or a number of seconds"
    if problem:
        raise ArgumentError(
            "the prefix source's arguments do not go together", code="argument.source", why=problem,
            todo="correct them",
        )  # fmt: skip
    if source.partition_from is not None:
        try:
            re.compile(source.partition_from)
        except re.error:
            raise ArgumentError(
                "partition_from is no regular expression", code="argument.partition_from", todo="correct it"
            ) from None
