"""Digests of rows: the same rows in the same order have the same digest, and no others.

For commits (a segment's digest is in the names of its files), verification, training selections and model
evidence. A digest is over *values*, not bytes on disk: it does not depend on batch boundaries, files,
compression, the bytes that happen to lie under nulls, the sign of zero or the payload of NaN. It covers
every cell; it is never a sample.

How: each column is a few byte streams (one byte of validity a row; the values, with zeros under nulls; for
text and lists the lengths, 64 bits each), each under SHA-256. The digest is SHA-256 over the number of rows
and the columns' names, types and stream digests, in the schema's order. Little-endian, format
``xops-digest-1``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.errors import LakeError
from airflow_provider_xops.lake.schema import cast_batch, to_delta_schema, type_name

__all__ = ["FORMAT", "SegmentDigest", "table_digest", "version_digest"]

FORMAT = "xops-digest-1"

# hashlib releases the interpreter's lock, so threads help where there are processors for them; below this
# many rows starting them costs more than it gives.
THREADS = 2
INLINE_ROWS = 16_384

_ONES = memoryview(b"\x01" * 65_536)


class SegmentDigest:
    """The digest of rows that come in batches.

    :param schema: a canonical schema (:func:`~airflow_provider_xops.lake.schema.to_delta_schema`).
    :param threads: columns are hashed by so many threads while the caller goes on (0: in the caller's
        thread).

    >>> digest = SegmentDigest(pa.schema([("n", pa.int64())]), threads=0)
    >>> digest.update(pa.record_batch({"n": [1, 2]}))
    >>> digest.update(pa.record_batch({"n": [3]}))
    >>> digest.hexdigest() == table_digest(pa.table({"n": [1, 2, 3]}).to_reader())
    True

    It does not cast: batches must have exactly ``schema``. Not for use from several threads.
    """

    def __init__(self, schema: pa.Schema, *, threads: int = THREADS) -> None:
        if sys.byteorder != "little":  # pragma: no cover
            raise LakeError(
                "this machine cannot compute digests",
                code="lake.byte_order",
                why="they are defined over little-endian values",
                todo="run the task on a little-endian machine (x86-64, ARM64)",
            )
        self.schema = schema
        self.rows = 0
        self._columns = [_stream_of(field.type) for field in schema]
        self._threads = min(threads, len(self._columns))
        self._pools: list[ThreadPoolExecutor] = []
        self._running: list[Future[None]] = []

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of ``batch``, which must not be changed: threads may go on with it."""
        self.rows += batch.num_rows
        if self._threads and (self._pools or batch.num_rows > INLINE_ROWS):
            self._wait()
            if not self._pools:
                # One single-threaded pool each: a column always has the same one, so that its batches stay
                # in order.
                self._pools = [ThreadPoolExecutor(1, "xops-digest") for _ in range(self._threads)]
            self._running = [
                self._pools[index % len(self._pools)].submit(stream.update, batch.column(index))
                for index, stream in enumerate(self._columns)
            ]
        else:
            for index, stream in enumerate(self._columns):
                stream.update(batch.column(index))

    def hexdigest(self) -> str:
        """The digest of all rows so far, 64 hexadecimal digits. Ends the threads."""
        self._wait()
        self.close()
        columns = [
            [field.name, type_name(field.type), stream.digests()]
            for field, stream in zip(self.schema, self._columns, strict=True)
        ]
        text = json.dumps([FORMAT, self.rows, columns], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def close(self) -> None:
        """End the threads; :meth:`hexdigest` does it too."""
        for pool in self._pools:
            pool.shutdown(wait=True)
        self._pools = []

    def _wait(self) -> None:
        running, self._running = self._running, []
        for future in running:
            future.result()


def table_digest(reader: pa.RecordBatchReader) -> str:
    """The digest of everything ``reader`` gives, cast to canonical types first.

    >>> table_digest(pa.table({"x": [0.0]}).to_reader()) == table_digest(pa.table({"x": [-0.0]}).to_reader())
    True
    """
    schema = to_delta_schema(reader.schema)
    digest = SegmentDigest(schema)
    try:
        for batch in reader:
            digest.update(cast_batch(batch, schema))
        return digest.hexdigest()
    finally:
        digest.close()


def version_digest(digests: Mapping[str, str]) -> str:
    """SHA-256 over the sorted (key, digest) pairs: of a version by partition, of a partition by batch.

    >>> version_digest({"b": "2", "a": "1"}) == version_digest({"a": "1", "b": "2"})
    True
    """
    text = json.dumps([FORMAT, sorted(digests.items())], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class _Stream(ABC):
    """Validity of one column; subclasses add its values."""

    def __init__(self) -> None:
        self._validity = hashlib.sha256()

    @abstractmethod
    def update(self, array: Any) -> None:
        """Add the values of one batch."""

    @abstractmethod
    def digests(self) -> list[Any]:
        """What identifies the column."""

    def _update_validity(self, array: Any) -> Any:
        """Hash validity; gives it as booleans, or None where nothing is missing."""
        if not array.null_count:
            left = len(array)
            while left > 0:
                self._validity.update(_ONES[:left])
                left -= len(_ONES)
            return None
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        self._validity.update(valid.view(np.uint8).data)
        return valid


class _Fixed(_Stream):
    """Values of a fixed width: numbers, dates, timestamps, decimals (two words), booleans (one byte)."""

    def __init__(self, kind: pa.DataType) -> None:
        super().__init__()
        self._values = hashlib.sha256()
        self._is_bool = pa.types.is_boolean(kind)
        self._is_float = pa.types.is_floating(kind)
        self._width = 2 if pa.types.is_decimal(kind) else 1
        if self._is_float:
            self._dtype = np.dtype(np.float64 if kind == pa.float64() else np.float32)
        elif self._width == 2:
            self._dtype = np.dtype(np.int64)
        else:
            self._dtype = np.dtype(f"i{1 if self._is_bool else kind.bit_width // 8}")

    def update(self, array: Any) -> None:
        valid = self._update_validity(array)
        if not len(array):
            return
        if self._is_bool:
            array = array.cast(pa.int8())
        start, end = array.offset * self._width, (array.offset + len(array)) * self._width
        values = np.frombuffer(array.buffers()[1], self._dtype, count=end)[start:]
        if self._is_float:
            with np.errstate(invalid="ignore"):  # signaling NaNs are as good as any
                values = values + 0.0  # a copy, in which -0.0 is 0.0
            missing = np.isnan(values)
            if missing.any():
                values[missing] = np.nan
        if valid is not None:
            shape = valid if self._width == 1 else np.repeat(valid, self._width)
            values = np.where(shape, values, self._dtype.type(0))
        self._values.update(values.view(np.uint8).data)

    def digests(self) -> list[Any]:
        return [self._validity.hexdigest(), self._values.hexdigest()]


class _Bytes(_Stream):
    """Text and binary: lengths and the bytes one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._lengths = hashlib.sha256()
        self._values = hashlib.sha256()

    def update(self, array: Any) -> None:
        valid = self._update_validity(array)
        if not len(array):
            return
        lengths = np.diff(_offsets(array)).astype(np.int64)
        if valid is not None:
            if lengths[~valid].any():  # bytes under nulls: leave them out
                dense = array.drop_null()
                self._update_values(dense)
            else:
                self._update_values(array)
            lengths[~valid] = 0
        else:
            self._update_values(array)
        self._lengths.update(lengths.view(np.uint8).data)

    def _update_values(self, array: Any) -> None:
        offsets, data = _offsets(array), array.buffers()[2]
        if data is not None and len(offsets) and offsets[-1] > offsets[0]:
            self._values.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])

    def digests(self) -> list[Any]:
        return [self._validity.hexdigest(), self._lengths.hexdigest(), self._values.hexdigest()]


class _List(_Stream):
    """Lists and maps: lengths, and the elements one after the other as a column of their own."""

    def __init__(self, element: _Stream) -> None:
        super().__init__()
        self._lengths = hashlib.sha256()
        self._element = element

    def update(self, array: Any) -> None:
        valid = self._update_validity(array)
        if not len(array):
            return
        lengths = np.diff(_offsets(array)).astype(np.int64)
        if valid is not None:
            if lengths[~valid].any():
                array = array.drop_null()
            lengths[~valid] = 0
        self._lengths.update(lengths.view(np.uint8).data)
        offsets = _offsets(array)
        if len(offsets):
            start = int(offsets[0])
            self._element.update(array.values.slice(start, int(offsets[-1]) - start))

    def digests(self) -> list[Any]:
        return [self._validity.hexdigest(), self._lengths.hexdigest(), self._element.digests()]


class _Struct(_Stream):
    """Structs: their own validity, and a column for each field (missing wherever the struct is)."""

    def __init__(self, fields: list[_Stream]) -> None:
        super().__init__()
        self._fields = fields

    def update(self, array: Any) -> None:
        self._update_validity(array)
        for stream, child in zip(self._fields, array.flatten(), strict=True):
            stream.update(child)

    def digests(self) -> list[Any]:
        return [self._validity.hexdigest(), [stream.digests() for stream in self._fields]]


def _stream_of(kind: pa.DataType) -> _Stream:
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _Bytes()
    if pa.types.is_map(kind):
        return _List(_Struct([_stream_of(kind.key_type), _stream_of(kind.item_type)]))
    if pa.types.is_list(kind):
        return _List(_stream_of(kind.value_type))
    if pa.types.is_struct(kind):
        return _Struct([_stream_of(field.type) for field in kind])
    return _Fixed(kind)


def _offsets(array: Any) -> Any:
    """The int32 offsets of a text, binary, list or map array's own slice: one more than it has rows."""
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(1, np.int32)
    return np.frombuffer(buffer, np.int32, count=array.offset + len(array) + 1)[array.offset :]
