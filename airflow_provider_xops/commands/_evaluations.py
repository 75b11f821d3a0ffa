"""Which evaluation a command is about: the one that is named, else the newest of a version and alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_xops.records import Evaluation, ModelVersion

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["evaluation_of"]


def evaluation_of(
    lake: Lake, model: ModelVersion, record_id: str | None, *, alias: str = ""
) -> Evaluation | None:
    """The evaluation to go by; None: there is none.

    :param alias: what the version would become; one that was made for another alias is taken only where there
        is no other, and promotion refuses it with the reason. Empty: the newest, whatever it was made for.
    """
    if record_id:
        found = lake.evidence.resolve(record_id, Evaluation.kind)
        assert isinstance(found, Evaluation)
        return found
    all_of_it = [
        each
        for each in lake.evidence.all(Evaluation.kind)
        if isinstance(each, Evaluation) and each.model == model.ref
    ]
    return max(
        all_of_it, key=lambda each: (not alias or each.alias in ("", alias), each.recorded_at), default=None
    )
