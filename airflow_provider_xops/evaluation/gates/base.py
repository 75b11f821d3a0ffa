"""What all gates have in common: the case they are asked about, and how they answer.

For the other modules of gates, and for gates of one's own: a subclass of :class:`Gate` names its ``kind`` and
answers :meth:`Gate.check`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.plan import EvaluationPlan
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    Evaluation,
    GateResult,
    ModelVersion,
    Outcome,
    Record,
)
from airflow_provider_xops.training.metrics import METRICS

__all__ = ["Case", "Gate", "is_number", "known_metric", "refused"]

R = TypeVar("R", bound=Record)


@dataclass
class Case:
    """What gates are asked about: a model version, its evaluation, and the records that the lake has of it.

    :param evaluation: the figures; None: there is none, and gates about figures have no data.
    :param as_of: the moment the gates are asked at; ages are counted up to it.
    :param actor: who asks; gates that make a record on the spot need one.
    :param consulted: ids of the records that the answers rest on, in the order they were looked at.
    """

    lake: Lake
    model: ModelVersion
    evaluation: Evaluation | None
    as_of: datetime
    actor: Actor | None = None
    consulted: list[str] = field(default_factory=list)
    _found: dict[str, list[Any]] = field(default_factory=dict, repr=False)

    def records(self, kind: type[R]) -> list[R]:
        """The lake's records of one kind about this very model version, newest first."""
        if kind.kind not in self._found:
            mine = [
                record
                for record in self.lake.evidence.all(kind.kind)
                if getattr(record, "model", None) == self.model.ref
            ]
            mine.sort(key=lambda record: (record.recorded_at, record.record_id), reverse=True)
            self._found[kind.kind] = mine
        return self._found[kind.kind]

    def consult(self, *records: Record) -> None:
        """Remember that an answer rests on these records."""
        self.consulted += [record.record_id for record in records if record.record_id not in self.consulted]


@dataclass(frozen=True, kw_only=True)
class Gate(ABC):
    """One rule. Subclasses are frozen dataclasses; their fields are what a policy file says.

    ``needs_evidence`` is True where the answer rests on more than the figures of the evaluation: on other
    records, or on the time. Such a gate is not asked by the evaluation, but when promotion is decided.
    """

    kind: ClassVar[str]
    needs_evidence: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """
        :raises ArgumentError: ``argument.gate``: a field does not hold what its annotation says.
        """
        for name, hint in _hints(type(self)).items():
            object.__setattr__(self, name, _of_type(hint, getattr(self, name), f"gate {self.kind}: {name}"))

    @property
    def name(self) -> str:
        """What its answer is called, such as ``metric_threshold:roc_auc``."""
        return self.kind

    @abstractmethod
    def check(self, case: Case) -> GateResult:
        """The gate's answer; *passed* only on a figure that exists."""

    def widen(self, plan: EvaluationPlan) -> EvaluationPlan:
        """The plan with what this gate needs to be measured; by default as it is."""
        return plan

    def to_json(self) -> dict[str, Any]:
        """The gate as plain JSON, which :func:`~airflow_provider_xops.evaluation.gates.gates_from` reads."""
        return {"gate": self.kind, **{key: _plain(value) for key, value in dataclasses.asdict(self).items()}}

    def passed(self, observed: float, threshold: float | None, message: str) -> GateResult:
        """The answer *passed*, with its figures."""
        return self._answer(Outcome.PASSED, observed, threshold, message)

    def failed(self, observed: float | None, threshold: float | None, message: str) -> GateResult:
        """The answer *failed*, with its figures."""
        return self._answer(Outcome.FAILED, observed, threshold, message)

    def no_data(self, why: str, threshold: float | None = None, observed: float | None = None) -> GateResult:
        """The answer *no data*, which holds a promotion: what is missing, in words."""
        return self._answer(Outcome.NO_DATA, observed, threshold, f"{why}, so the gate cannot pass")

    def _answer(
        self, outcome: Outcome, observed: float | None, threshold: float | None, message: str
    ) -> GateResult:
        return GateResult(
            gate=self.name, outcome=outcome, observed=observed, threshold=threshold, message=message
        )


def is_number(value: Any) -> bool:
    """Whether a value is a figure that a rule can be about: no NaN, no infinity, no True.

    >>> is_number(0.5), is_number(float("nan")), is_number(None), is_number(True)
    (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def known_metric(kind: str, metric: str) -> None:
    """
    :raises ArgumentError: ``argument.gate``: there is no such metric.
    """
    if metric not in METRICS:
        import difflib

        close = difflib.get_close_matches(str(metric), METRICS, n=1)
        raise refused(
            f"gate {kind} names an unknown metric {metric!r}",
            (f"did you mean {close[0]}? " if close else "") + f"the known ones: {', '.join(METRICS)}",
        )


def refused(what: str, todo: str) -> ArgumentError:
    """The error of a gate that cannot be read or can never pass."""
    return ArgumentError(what, code="argument.gate", todo=todo)


@functools.cache
def _hints(cls: type[Gate]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {each.name: hints[each.name] for each in dataclasses.fields(cls)}


def _of_type(hint: Any, value: Any, place: str) -> Any:
    """The value if it is what the annotation says; a misspelled word must not choose another rule."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and NoneType in kinds:
        return None
    kind = next(each for each in kinds if each is not NoneType)
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise refused(f"{place} is {value!r}", f"use one of {', '.join(map(repr, get_args(kind)))}")
    if get_origin(kind) is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise refused(f"{place} is a {type(value).__name__}", "give a list")
        return tuple(value)
    wrong_number = kind is float and not is_number(value)
    wrong_plain = kind in (str, bool, int) and (
        not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    )
    if wrong_number or wrong_plain:
        words = {float: "a finite number", int: "a whole number", str: "a text", bool: "true or false"}
        raise refused(f"{place} is no usable {kind.__name__}", f"give {words[kind]}")
    return value


def _plain(value: Any) -> Any:
    # 500 and 500.0 are one limit: read from a file, stored and read again a gate must stay the same gate.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
