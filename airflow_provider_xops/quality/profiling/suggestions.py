"""Suggestions for a table of the lake: the suite and the steps that its profiles suggest.

For the profile operator and the ``xops`` command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import partition_digests
from airflow_provider_xops.quality.profiling.profile import profile, profile_document, profiles_of
from airflow_provider_xops.quality.profiling.steps import steps_text, suggest_steps
from airflow_provider_xops.quality.profiling.suggest import SuggestedSuite, suggest_suite
from airflow_provider_xops.records import DatasetProfile, DatasetRef, digest_of

__all__ = ["put_suite", "steps_of", "suite_by_partition", "suite_of"]


def suite_of(lake: Lake, record: DatasetProfile, *, profiles: int = 1) -> SuggestedSuite:
    """The suite that the table's newest profiles suggest: this one, and those before it, ``profiles`` in all.

    Of a version that was profiled several times, whole and in parts, each part counts.

    :raises ArgumentError: ``argument.profiles``: not even one; :raises NotFoundError: a document is gone.
    """
    if profiles < 1:
        raise ArgumentError(
            f"{profiles} profiles suggest nothing", code="argument.profiles", todo="ask for one or more"
        )
    earlier = [
        one
        for one in profiles_of(lake, record.dataset)
        if (one.dataset.version, one.partitions) != (record.dataset.version, record.partitions)
    ]
    chosen = [*earlier[len(earlier) - (profiles - 1) :], record] if profiles > 1 else [record]
    return suggest_suite([profile_document(lake, one) for one in chosen])


def suite_by_partition(
    lake: Lake, ref: DatasetRef, partitions: Sequence[str] | None = None, **options: Any
) -> SuggestedSuite:
    """The suite for runs that look at one partition at a time: each is profiled by itself.

    :param partitions: of which; None: of all.
    :param options: of :func:`~airflow_provider_xops.quality.profiling.profile.profile`.
    """
    names = sorted(partition_digests(lake, ref) if partitions is None else set(partitions))
    records = [profile(lake, ref, partitions=[name], compare_with=None, **options) for name in names]
    return suggest_suite([profile_document(lake, record) for record in records])


def steps_of(lake: Lake, record: DatasetProfile) -> tuple[list[dict[str, Any]], str]:
    """The preparation steps that a profile suggests, as data and as YAML.

    :raises NotFoundError: its document is gone.
    """
    document = profile_document(lake, record)
    steps = suggest_steps(document)
    return steps, steps_text(document, steps)


def put_suite(lake: Lake, record: DatasetProfile, suite: SuggestedSuite) -> str:
    """Store a suggested suite beside the profile; gives its URI. The same suite is stored once."""
    path = f"profiles/{record.record_id}.suite-{digest_of(suite.text)[:12]}.yaml"
    return lake.evidence.put_report(path, suite.text.encode(), content_type="text/plain; charset=utf-8")
