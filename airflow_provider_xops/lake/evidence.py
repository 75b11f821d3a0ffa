"""Evidence: every record once, append-only, one JSON object at a deterministic name.

For every room that records something. A record is put-if-absent, so any number of writers lose nothing, and
writing the same fact again is harmless. Maintenance folds old objects into Delta tables
(:func:`airflow_provider_xops.lake.maintenance.fold_evidence`); readers see both as one.
"""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_xops.errors import ArgumentError, DataError, NotFoundError
from airflow_provider_xops.lake._folded import Folded
from airflow_provider_xops.lake.storage import Storage
from airflow_provider_xops.records import RECORD_TYPES, Record, record_from_json

__all__ = ["EVIDENCE", "EvidenceStore", "decode_record", "encode_record", "evidence_path"]

log = logging.getLogger(__name__)

EVIDENCE = "_xops/evidence"
REPORTS = "_xops/reports"
MIN_PREFIX = 6

_HEX = re.compile(r"[0-9a-f]+")


class EvidenceStore:
    """The records of one lake."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folded: dict[str, Folded] = {}

    def put(self, record: Record, *, quiet: bool = False) -> bool:
        """Write ``record`` whole. True: written; False: a record of this identity was there, and stays.

        :param quiet: no line in the log; for callers that write many and say so in one line.
        :raises DataError: it holds NaN or something else without a JSON form (``data.record_not_json``).
        """
        if record.record_id in self._fold(record.kind):
            return False
        written = self._storage.put_if_absent(
            evidence_path(record.kind, record.record_id),
            encode_record(record),
            content_type="application/json",
        )
        if written and not quiet:
            log.info("Recorded %s %s.", record.kind, record.record_id)
        return written

    def get(self, kind: str, record_id: str) -> Record:
        """The record.

        :raises NotFoundError: there is none (``not_found.record``).
        """
        raw: bytes | str | None = self._storage.get(evidence_path(kind, record_id))
        if raw is None:
            # Asked again from the table as it is now: the object may have been folded a moment ago.
            raw = self._fold(kind).get(record_id) or self._fold(kind, fresh=True).get(record_id)
        if raw is None:
            raise NotFoundError(
                f"there is no record {record_id} of kind {kind} in the lake at {self._storage.uri}",
                code="not_found.record", todo="check the id, and that this is the lake it was written to",
                context={"kind": kind, "record_id": record_id},
            )  # fmt: skip
        return decode_record(raw, kind, record_id)

    def find(self, kind: str, record_id_prefix: str) -> list[Record]:
        """The records whose id begins with ``record_id_prefix`` (6 or more hex digits), ordered by id.

        :raises ArgumentError: the prefix is too short or not hex (``argument.record_id``).
        """
        _check_kind(kind)
        if len(record_id_prefix) < MIN_PREFIX or not _HEX.fullmatch(record_id_prefix):
            raise ArgumentError(
                f"{record_id_prefix!r} is not the beginning of a record id", code="argument.record_id",
                todo=f"give at least {MIN_PREFIX} lowercase hex digits",
            )  # fmt: skip
        return list(self._all(kind, record_id_prefix))

    def all(self, kind: str) -> Iterator[Record]:
        """Every record of a kind, objects and folded ones as one, each once, in the order of their ids."""
        _check_kind(kind)
        return self._all(kind, "")

    def uri(self, record: Record) -> str:
        """The name of the record's object; after a fold its content is in the folded table: ask by id."""
        return f"{self._storage.uri}/{evidence_path(record.kind, record.record_id)}"

    def put_report(self, path: str, data: bytes, *, content_type: str) -> str:
        """Write a report (JSON, HTML) at ``path`` in the reports folder unless it is there; gives its URI."""
        name = f"{REPORTS}/{path}"
        self._storage.put_if_absent(name, data, content_type=content_type)
        return f"{self._storage.uri}/{name}"

    def resolve(self, data: Mapping[str, Any] | Record | str, kind: str) -> Record:
        """The record that ``data`` stands for: itself, its JSON (as text too, or shortened), or its id.

        :param data: what another task returned or a person typed; an id may be cut to 6 or more hex digits.
        :raises NotFoundError: no record has that id; :raises DataError: the JSON is not a record of ``kind``;
            :raises ArgumentError: it is none of these, or several records begin with that id.
        """
        _check_kind(kind)
        if isinstance(data, str):
            text = data.strip()
            if _HEX.fullmatch(text):
                return self._by_id(kind, text)
            data = _parsed(text, kind)
        if not isinstance(data, Record):
            found = data.get("kind", kind)
            if found != kind:
                raise _wrong_kind(found, kind)
            if _is_shortened(data):
                return self.get(kind, str(data.get("record_id")))
            data = record_from_json({**data, "kind": kind})
        if data.kind != kind:
            raise _wrong_kind(data.kind, kind)
        return data

    def _by_id(self, kind: str, record_id: str) -> Record:
        if len(record_id) == 32:
            return self.get(kind, record_id)
        found = self.find(kind, record_id)
        if len(found) > 1:
            raise ArgumentError(
                f"{len(found)} records of kind {kind} begin with {record_id}", code="argument.record_id",
                todo="give more digits of the id",
            )  # fmt: skip
        return found[0] if found else self.get(kind, record_id)

    def _all(self, kind: str, id_prefix: str) -> Iterator[Record]:
        # Objects are listed before the table is read: a fold in between moves a record from the first to the
        # second, so it is seen in the second; the other order could miss it in both.
        paths = {_id_of(path): path for path in self._storage.list(f"{EVIDENCE}/{kind}/{id_prefix}")}
        folded = {key: raw for key, raw in self._fold(kind, fresh=True).items() if key.startswith(id_prefix)}
        objects = {
            _id_of(path): raw
            for path, raw in self._storage.get_many(
                [path for key, path in paths.items() if key not in folded]
            )
        }
        for record_id in sorted(objects.keys() | folded.keys()):
            raw = folded.get(record_id) or objects.get(record_id)
            # None: folded after the table was read; get() looks again.
            yield self.get(kind, record_id) if raw is None else decode_record(raw, kind, record_id)

    def _fold(self, kind: str, *, fresh: bool = False) -> Folded:
        _check_kind(kind)
        if fresh or kind not in self._folded:
            self._folded[kind] = Folded.read(self._storage, kind, known=self._folded.get(kind))
        return self._folded[kind]


def evidence_path(kind: str, record_id: str) -> str:
    """Where the object of a record is, relative to the lake.

    >>> evidence_path("models", "0f" * 16)
    '_xops/evidence/models/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f.json'
    """
    _check_kind(kind)
    if not _HEX.fullmatch(record_id):
        raise ArgumentError(
            f"{record_id!r} is not a record id",
            code="argument.record_id",
            todo="give its lowercase hex digits",
        )
    return f"{EVIDENCE}/{kind}/{record_id}.json"


def encode_record(record: Record) -> bytes:
    """The bytes that evidence keeps of a record: its whole JSON, one line, keys sorted.

    :raises DataError: it holds NaN or something else that JSON has no form for.
    """
    try:
        return json.dumps(record.to_json(), sort_keys=True, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        raise DataError(
            f"{type(record).__name__} {record.record_id} cannot be written as JSON",
            code="data.record_not_json",
            why="a field holds NaN, infinity or an object that is not plain",
            todo="record figures that are missing as None",
        ) from None  # fmt: skip


def decode_record(raw: bytes | str, kind: str, name: str) -> Record:
    """The record in what evidence keeps; ``name`` says which one in the error.

    :raises DataError: it is not a record of ``kind`` (``data.record_unreadable``).
    """
    try:
        data = json.loads(raw)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise DataError(
            f"record {name} of kind {kind} cannot be read", code="data.record_unreadable",
            why="it is not a JSON object", todo="restore it from a backup of the lake",
        )  # fmt: skip
    return record_from_json({**data, "kind": kind})


def _parsed(text: str, kind: str) -> Mapping[str, Any]:
    # A template such as {{ ti.xcom_pull("train") }} renders a dictionary as Python text, not as JSON.
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    raise ArgumentError(
        f"this text does not name a record of kind {kind}", code="argument.record",
        todo="pass the record that a task returned, its JSON, or its record_id",
    )  # fmt: skip


def _is_shortened(data: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) and value.get("shortened") is True for value in data.values())


def _wrong_kind(found: Any, kind: str) -> DataError:
    return DataError(
        f"this is a record of kind {found!r}, not {kind!r}", code="data.record_kind",
        todo=f"pass the output of a task that gives {kind}",
    )  # fmt: skip


def _check_kind(kind: str) -> None:
    if kind not in RECORD_TYPES:
        raise DataError(
            f"unknown record kind {kind!r}",
            code="data.record_kind",
            todo=f"use one of {sorted(RECORD_TYPES)}",
        )


def _id_of(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".json")
