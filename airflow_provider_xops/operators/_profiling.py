"""The operator that profiles a dataset version.

For :mod:`airflow_provider_xops.operators.data`, its public place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.links.evidence import EvidenceLink, ProfileLink
from airflow_provider_xops.operators._arguments import is_empty, mapping_of, whole_number
from airflow_provider_xops.operators._base import XOpsOperator, actor_of, now
from airflow_provider_xops.operators._datasets import dataset_of, empty_partition, partitions_of
from airflow_provider_xops.operators._openlineage import profile_lineage

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.records import DatasetProfile, DatasetRef
    from airflow_provider_xops.version_compat import Context

__all__ = ["ProfileDatasetOperator"]

PREVIOUS = "previous"


class ProfileDatasetOperator(XOpsOperator):
    """Profiles a dataset version, compares its columns with an earlier one's, and may suggest a suite.

    The profile is in the lake before a policy may stop the task, and the task links to its page.

    :param dataset: what to look at: a task's output (the partitions that task was asked for), a record id,
        ``TABLE__raw`` or ``TABLE@VERSION``.
    :param partition: only these partitions.
    :param compare_with: what schema changes are against: ``previous`` (the newest earlier version that has a
        profile, else the version before), another dataset named as above, or None.
    :param schema_policy: what a change does: ``added``, ``removed``, ``retyped``, ``widened`` (to a type that
        holds every old value) and ``renamed`` (probably) to ``allow``, ``warn`` or ``fail``. By default
        removed and retyped columns fail and the others warn.
    :param values: texts of rows in the documents: ``none``, ``masked`` (their shape) or ``full``. Records,
        XCom and logs never have any.
    :param time_column: whose coverage is looked at; by default the column of times with the fewest missing
        values.
    :param suggest_suite: suggest a suite from so many of the table's newest profiles, this one included; 0:
        none.
    :param memory_limit: of DuckDB; what does not fit spills to disk.
    :raises ValidationError: ``validation.schema_changed``: the policy says fail; no retries.
    :raises ArgumentError: an argument is unusable.

    Returns the record of the profile; with ``suggestion_uri`` (YAML in the lake) where a suite was asked for.

    Example::

        ProfileDatasetOperator(
            task_id="profile", dataset=ingest.output, schema_policy={"added": "allow"}, suggest_suite=7
        )

    What it does not do: it changes no data, and puts no suite to use. A suggestion is for review.
    """

    required = ("dataset", "values", "memory_limit")
    template_fields = (
        *XOpsOperator.template_fields,
        "dataset",
        "partition",
        "compare_with",
        "schema_policy",
        "values",
        "time_column",
        "suggest_suite",
        "memory_limit",
    )
    operator_extra_links = (ProfileLink(), EvidenceLink())

    # Set while performing, for OpenLineage, which asks for it afterwards in the same process.
    lineage_profile: DatasetProfile | None = None

    def __init__(
        self,
        *,
        dataset: Any,
        partition: str | Sequence[str] | None = None,
        compare_with: Any = PREVIOUS,
        schema_policy: Mapping[str, str] | str | None = None,
        values: Literal["none", "masked", "full"] = "none",
        time_column: str | None = None,
        suggest_suite: int | str = 0,
        memory_limit: str = "1GB",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.partition = partition
        self._partitioned = partition is not None
        self.compare_with = compare_with
        self._compared = compare_with is not None
        self.schema_policy = schema_policy
        self.values = values
        self.time_column = time_column
        self.suggest_suite = suggest_suite
        self.memory_limit = memory_limit

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.quality.profiling.profile import profile, schema_error
        from airflow_provider_xops.quality.profiling.suggestions import put_suite, suite_of

        profiles = whole_number(self.suggest_suite, argument="suggest_suite") or 0
        if profiles < 0:
            raise ArgumentError(
                f"suggest_suite is {profiles}",
                code="argument.suggest_suite",
                todo="give a whole number from 0",
            )
        policy = self.schema_policy
        lake = self.lake()
        named = dataset_of(lake, self.dataset, argument="dataset", allow_raw=True)
        partitions = partitions_of(self.partition)
        if partitions is None and self._partitioned:  # must not turn into all of them
            raise empty_partition("partition")
        record = profile(
            lake,
            named.ref,
            partitions=partitions or named.partitions,
            compare_with=self._other(lake),
            policy=None if is_empty(policy) else mapping_of(policy, argument="schema_policy"),
            values=self.values,
            time_column=None if is_empty(self.time_column) else self.time_column,
            memory_limit=self.memory_limit,
            actor=actor_of(context),
            as_of=now(),
        )
        self.report_uri, self.lineage_profile = record.report_uri, record
        more: dict[str, Any] = {}
        if profiles:
            more["suggestion_uri"] = put_suite(lake, record, suite_of(lake, record, profiles=profiles))
            self.log.info("Suggested a suite for review: %s", more["suggestion_uri"])
        returned = self.hand_over(context, lake, record, **more)
        for change in record.schema_changes:
            if change.verdict == "warn":
                self.log.warning(
                    "Column %s of %s: %s. %s", change.column, named.ref, change.change, change.message
                )
        if any(change.verdict == "fail" for change in record.schema_changes):
            raise schema_error(record)
        return returned

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What OpenLineage is told: the dataset with the metrics of its columns."""
        return profile_lineage(self.lineage_profile, self.lake_conn_id)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """The same of a profile whose schema changes stopped the task."""
        return profile_lineage(self.lineage_profile, self.lake_conn_id)

    def _other(self, lake: Lake) -> str | DatasetRef | None:
        if not self._compared:
            return None
        if isinstance(self.compare_with, str) and self.compare_with.strip() == PREVIOUS:
            return PREVIOUS
        return dataset_of(lake, self.compare_with, argument="compare_with", allow_raw=True).ref
