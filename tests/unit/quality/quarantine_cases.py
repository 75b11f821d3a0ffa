"""A raw table of flights on its way, and the suites that it meets, for the tests of the quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from airflow_provider_xops.data.publish import publish
from airflow_provider_xops.lake.commit import CommitResult
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import table_exists
from airflow_provider_xops.quality.quarantine import Quarantined, quarantine
from airflow_provider_xops.quality.quarantined import quarantined_rows_of
from airflow_provider_xops.quality.release import Released, release
from airflow_provider_xops.quality.validate import validate
from airflow_provider_xops.records import DatasetRef, DatasetVersion, ValidationReport
from tests.unit.lake.helpers import put, rows_of, segment, user

ENGINE = "duckdb"
AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
DAY = "2013-01-01"
SUITE = "tests.unit.quality.quarantine_cases:flights"
NOT_NULL = "expect_column_values_to_not_be_null(carrier)"
POSITIVE = "expect_column_values_to_be_between(flight)"


def flights() -> Any:
    """A carrier for each flight, and a positive number; what is odd is no more than odd."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToNotBeNull(column="carrier"),
        gxe.ExpectColumnValuesToBeBetween(column="flight", min_value=1),
        gxe.ExpectColumnValuesToBeInSet(column="carrier", value_set=["AA", "UA"], severity="warning"),
    ]


def strict() -> Any:
    """The same with the odd ones refused."""
    import great_expectations.expectations as gxe

    return [*flights(), gxe.ExpectColumnValuesToBeInSet(column="carrier", value_set=["AA", "UA"])]


def lenient() -> Any:
    """Any number will do."""
    return flights()[2:]


def counted() -> Any:
    """At least four flights a day."""
    import great_expectations.expectations as gxe

    return [*flights(), gxe.ExpectTableRowCountToBeBetween(min_value=4)]


def only_counted() -> Any:
    """Nothing about single rows."""
    import great_expectations.expectations as gxe

    return [gxe.ExpectTableRowCountToBeBetween(min_value=100)]


def mostly() -> Any:
    """A third may have no carrier."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToNotBeNull(column="carrier", mostly=0.6),
        gxe.ExpectColumnValuesToBeBetween(column="flight", min_value=1, mostly=0.9),
    ]


def erring() -> Any:
    """A check that cannot run."""
    import great_expectations.expectations as gxe

    return [gxe.ExpectColumnValuesToNotBeNull(column="carrier"), gxe.ExpectColumnMaxToBeBetween(column="no")]


def unique() -> Any:
    """Every flight once."""
    import great_expectations.expectations as gxe

    return [gxe.ExpectColumnValuesToBeUnique(column="flight")]


def bounded() -> Any:
    """Two checks alike."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(column="flight", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="flight", max_value=99),
    ]


# What a file holds: (flight, carrier). Of A, rows 1 and 3 are bad.
A = [(1, "AA"), (2, None), (3, "UA"), (-4, "AA"), (5, "AA")]
B = [(1, "AA"), (2, "AA"), (3, "UA"), (4, "AA"), (5, "AA")]
ALSO_BAD = [(7, None), (8, "AA"), (9, "AA"), (10, "AA"), (11, "AA")]


@dataclass
class Flow:
    """A table that files arrive for, with the steps that a DAG would run."""

    lake: Lake
    table: str = "flights"
    suite: str = SUITE
    fence: int = 0
    engine: str = ENGINE
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, rows: Sequence[tuple[Any, Any]], day: str = DAY, **options: Any) -> DatasetRef:
        """Ingest: the same rows are the same file."""
        return self._load({day: rows}, **options).ref

    def load_days(self, **days: Sequence[tuple[Any, Any]]) -> DatasetRef:
        return self._load(days).ref

    def _load(self, days: Mapping[str, Sequence[tuple[Any, Any]]], **options: Any) -> DatasetVersion:
        batch = options.get("batch_id")
        parts = [segment(day, f"file {rows}", table_of(rows), batch) for day, rows in days.items()]
        options = {**self.options, **{key: value for key, value in options.items() if key != "batch_id"}}
        return put(self.lake, f"{self.table}__raw", *parts, actor=self._actor(), **options).record

    def validate(self, ref: DatasetRef, *partitions: str, suite: str | None = None) -> ValidationReport:
        return validate(
            self.lake, ref, suite=suite or self.suite, partitions=partitions or None, engine=self.engine,
            data_docs=False, actor=self._actor(), as_of=AS_OF,
        )  # fmt: skip

    def part(self, report: ValidationReport, suite: str | None = None, max_share: float = 0.9) -> Quarantined:
        return quarantine(
            self.lake, report, suite=suite or self.suite, engine=self.engine, max_share=max_share,
            data_docs=False, actor=self._actor(), as_of=AS_OF,
        )  # fmt: skip

    def publish(self, report: ValidationReport) -> CommitResult:
        return publish(self.lake, report, actor=self._actor(), as_of=AS_OF)

    def run(self, rows: Sequence[tuple[Any, Any]], suite: str | None = None) -> Quarantined:
        """The whole DAG run of a file."""
        return self.check_and_publish(self.load(rows), suite)

    def check_and_publish(self, ref: DatasetRef, suite: str | None = None) -> Quarantined:
        parted = self.part(self.validate(ref, DAY, suite=suite), suite)
        self.publish(parted.report)
        return parted

    def release(self, rows: Any, **options: Any) -> Released:
        """Mended rows: row number to (flight, carrier), or a table, or None."""
        if isinstance(rows, Mapping):
            rows = mended(rows)
        options = {"suite": self.suite, "reason": "mended by hand", "partition": DAY, **options}
        return release(
            self.lake, self.table, rows=rows, engine=self.engine, data_docs=False,
            actor=self._actor(), as_of=AS_OF, **options,
        )  # fmt: skip

    def published(self, day: str = DAY) -> list[tuple[Any, ...]]:
        return rows_of(self.lake, self.table).get(day, [])

    def accepted(self, day: str = DAY) -> list[tuple[Any, ...]]:
        return rows_of(self.lake, f"{self.table}__accepted").get(day, [])

    def waiting(self, day: str = DAY) -> list[int]:
        """The numbers of the rows in quarantine."""
        if not table_exists(self.lake, f"{self.table}__quarantine"):
            return []
        return [row[2] for row in rows_of(self.lake, f"{self.table}__quarantine").get(day, [])]

    def export(self, day: str = DAY) -> pa.Table:
        return quarantined_rows_of(self.lake, self.table, partition=day)

    def _actor(self) -> Any:
        self.fence += 1
        return user(self.fence)


def table_of(rows: Sequence[tuple[Any, Any]]) -> pa.Table:
    """Flights as a table."""
    return pa.table(
        {"flight": [row[0] for row in rows], "carrier": pa.array([row[1] for row in rows], pa.string())},
        schema=pa.schema([("flight", pa.int64()), ("carrier", pa.string())]),
    )


def mended(rows: Mapping[int, tuple[Any, Any]]) -> pa.Table:
    """Mended rows by their number."""
    return table_of(list(rows.values())).append_column("_xops_row", pa.array(list(rows), pa.int64()))
