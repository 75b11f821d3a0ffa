"""Evidence that maintenance folded: one Delta table a record kind, read whole.

For evidence.py, which reads them, and maintenance.py, which writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_xops.lake.storage import Storage

__all__ = ["FOLDED", "Folded", "folded_path"]

FOLDED = "_xops/folded"


def folded_path(kind: str) -> str:
    """Where the folded table of a kind is, relative to the lake."""
    return f"{FOLDED}/{kind}"


class Folded(Mapping[str, str]):
    """Record id -> the record's JSON text, as one version of the folded table has them."""

    def __init__(self, texts: dict[str, str], version: int | None = None) -> None:
        self._texts = texts
        self.version = version

    @classmethod
    def read(cls, storage: Storage, kind: str, *, known: Folded | None = None) -> Folded:
        """The folded records of a kind as they are now (maybe none); ``known`` itself if it still is."""
        return cls.open(storage, kind, known=known)[0]

    @classmethod
    def open(cls, storage: Storage, kind: str, *, known: Folded | None = None) -> tuple[Folded, Any]:
        """The same, with the deltalake handle it was read through (None if nothing was ever folded)."""
        if not storage.exists(f"{folded_path(kind)}/_delta_log/00000000000000000000.json"):
            return cls({}), None
        from deltalake import DeltaTable  # a lake that was never folded does not pay for the import

        from airflow_provider_xops.lake._delta import delta_errors

        texts: dict[str, str] = {}
        with delta_errors(f"cannot read the folded evidence of kind {kind} in the lake at {storage.uri}"):
            handle = DeltaTable(storage.table_uri(folded_path(kind)), storage_options=storage.delta_options())
            if known is not None and known.version == handle.version():
                return known, handle
            for batch in handle.to_pyarrow_dataset().to_batches(columns=["record_id", "json"]):
                columns = (batch[name].to_pylist() for name in ("record_id", "json"))
                for record_id, text in zip(*columns, strict=True):
                    texts.setdefault(record_id, text)
        return cls(texts, handle.version()), handle

    def __getitem__(self, record_id: str) -> str:
        return self._texts[record_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)
