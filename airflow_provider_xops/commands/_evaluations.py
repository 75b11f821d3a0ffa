"""Which evaluation a command is about: the one that is named, else the newest of a model version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_xops.records import Evaluation, ModelVersion

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["evaluation_of"]


def evaluation_of(lake: Lake, model: ModelVersion, record_id: str | None) -> Evaluation | None:
    if record_id:
        found = lake.evidence.resolve(record_id, Evaluation.kind)
        assert isinstance(found, Evaluation)
        return found
    all_of_it = [
        each
        for each in lake.evidence.all(Evaluation.kind)
        if isinstance(each, Evaluation) and each.model == model.ref
    ]
    return max(all_of_it, key=lambda each: each.recorded_at, default=None)
