"""Leaks: whether the rows that judge a model are among those that it, or the champion, was trained on.

For promotion. Rows are compared as exactly as the records allow: the evaluation's gate ``holdout_unseen`` has
counted the rows that both sides share; without it, selections are compared by the places of their rows, then
by partitions and intervals of time. Where nothing proves that the rows are apart, sharing a partition is a
leak.

What it does not do: it reads no rows, and it cannot know rows that reached the holdout through another table.
"""

from __future__ import annotations

import re
from datetime import datetime

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import Evaluation, GateResult, ModelVersion, Outcome, Selection

__all__ = ["LEAK_GATE", "leak_of"]

# The gate that evaluation adds to those asked: how many holdout rows either model was trained on.
LEAK_GATE = "holdout_unseen"

_INTERVAL = re.compile(r"time\[(?P<column>[^\]]+)\]:\[(?P<start>[^,]*),(?P<end>[^)]*)\)")


def leak_of(evaluation: Evaluation, model: ModelVersion, champion: ModelVersion | None) -> str:
    """How the evaluation's rows meet those that a contender was trained on; empty if they do not.

    :param model: the model evaluated. :param champion: the one it was compared with, if the lake knows it.
    """
    contenders = [contender for contender in (model, champion) if contender is not None]
    counted = _counted(evaluation)
    if counted is not None and counted.outcome is Outcome.FAILED:
        return counted.message or f"{counted.observed:g} holdout rows were trained on"
    for contender in contenders:
        found = _same_rows(evaluation.selection, contender)
        if not found and counted is None:
            found = _may_share_rows(evaluation.selection, contender)
        if found:
            return found
    return ""


def _counted(evaluation: Evaluation) -> GateResult | None:
    """The gate's answer, if it has counted: no shared row is proof, and so is one."""
    for gate in evaluation.gates:
        passed = gate.outcome is Outcome.PASSED and gate.observed == 0
        failed = gate.outcome is Outcome.FAILED and gate.observed is not None and gate.observed > 0
        if gate.gate == LEAK_GATE and (passed or failed):
            return gate
    return None


def _same_rows(holdout: Selection, model: ModelVersion) -> str:
    """Whether the holdout is the very selection that the model was trained on."""
    training = model.training
    if training is None or training.dataset.table_uuid != holdout.dataset.table_uuid:
        return ""
    if training.digest == holdout.digest or _one_by_place(training, holdout):
        return f"the holdout is what {model.name} v{model.version} was trained on"
    return ""


def _may_share_rows(holdout: Selection, model: ModelVersion) -> str:
    """Whether the two lie in common partitions and nothing says that they are apart there."""
    training = model.training
    if training is None or training.dataset.table_uuid != holdout.dataset.table_uuid:
        return ""
    common = sorted(set(training.partitions) & set(holdout.partitions))
    if not common or _own_holdout(holdout, model) or _apart(training, holdout):
        return ""
    return (
        f"the holdout and the training data of {model.name} v{model.version} share {len(common)} partitions"
        f" of {holdout.dataset.table}, the first is {common[0]}"
    )


def _own_holdout(holdout: Selection, model: ModelVersion) -> bool:
    """Whether these are the rows that the model's own split kept from its training."""
    own = model.holdout
    if own is None or own.dataset != holdout.dataset:
        return False
    return own.digest == holdout.digest or _one_by_place(own, holdout)


def _one_by_place(one: Selection, other: Selection) -> bool:
    """Whether both are the same rows of one dataset version, whichever columns each has selected.

    ``digest`` is over the selected columns, so that models with other features have other digests of the same
    rows; ``row_ids_digest`` is over the places of the rows.
    """
    return (
        one.dataset == other.dataset
        and one.row_ids_digest is not None
        and one.row_ids_digest == other.row_ids_digest
    )


def _apart(training: Selection, holdout: Selection) -> bool:
    """Whether both say which interval of the same time column they are, and the intervals do not meet."""
    first, second = _INTERVAL.search(training.description), _INTERVAL.search(holdout.description)
    if first is None or second is None or first["column"] != second["column"]:
        return False
    before = first["end"] and second["start"] and _moment(first["end"]) <= _moment(second["start"])
    after = second["end"] and first["start"] and _moment(second["end"]) <= _moment(first["start"])
    return bool(before or after)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ArgumentError(
            f"the selection's interval bound {text} has no time zone",
            code="argument.naive_interval",
            todo="describe intervals in UTC",
        )
    return moment
