"""Promotion gates: a rule about the figures of an evaluation, and its answer with the figures it looked at.

For evaluation, which asks them, and promotion, which reads the answers. A gate passes only on a figure that
exists: a missing one is *no data*, which holds the promotion, and never *passed*.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import GateResult, Outcome, digest_of
from airflow_provider_xops.training.metrics import METRICS, difference

__all__ = ["GATES", "BetterThanChampion", "Figures", "Gate", "MetricThreshold", "gates_digest", "gates_from"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The challenger's figures, and the champion's on the same rows (None: there is no champion)."""

    challenger: Mapping[str, float | None]
    champion: Mapping[str, float | None] | None


@dataclass(frozen=True, kw_only=True)
class Gate(ABC):
    """One rule. Subclasses name their ``kind``, which is what a dictionary in a DAG file says."""

    kind: ClassVar[str]

    metric: str

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise _argument(
                f"gate {self.kind} names an unknown metric {self.metric!r}",
                f"the known ones: {', '.join(METRICS)}",
            )

    @abstractmethod
    def check(self, figures: Figures) -> GateResult:
        """The gate's answer to these figures."""

    def to_json(self) -> dict[str, Any]:
        """The gate as plain JSON, which :func:`gates_from` reads."""
        return {"gate": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class MetricThreshold(Gate):
    """The challenger's figure is at least ``minimum`` and at most ``maximum``; one of them may be left out.

    >>> gate = MetricThreshold(metric="roc_auc", minimum=0.6)
    >>> gate.check(Figures(challenger={"roc_auc": 0.7}, champion=None)).outcome.value
    'passed'
    """

    kind: ClassVar[str] = "metric_threshold"

    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if not bounds or not all(_is_number(bound) for bound in bounds):
            raise _argument(
                f"gate {self.kind} on {self.metric} has no usable bound",
                "give minimum, maximum or both, as numbers",
            )
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise _argument(
                f"gate {self.kind} on {self.metric} can never pass: its minimum is above its maximum",
                "swap or correct them",
            )

    def check(self, figures: Figures) -> GateResult:
        name = f"{self.kind}:{self.metric}"
        observed = figures.challenger.get(self.metric)
        low, high = self.minimum, self.maximum
        threshold: float | None
        if not _is_number(observed):
            return _no_figure(name, self.metric, low if low is not None else high)
        assert observed is not None
        if low is not None and observed < low:
            outcome, threshold, message = (
                Outcome.FAILED,
                low,
                f"{self.metric} {observed:.6g} is below {low:g}",
            )
        elif high is not None and observed > high:
            outcome, threshold, message = (
                Outcome.FAILED,
                high,
                f"{self.metric} {observed:.6g} is above {high:g}",
            )
        else:
            threshold = low if low is not None else high
            outcome, message = Outcome.PASSED, f"{self.metric} {observed:.6g} is within its bounds"
        return GateResult(gate=name, outcome=outcome, observed=observed, threshold=threshold, message=message)


@dataclass(frozen=True, kw_only=True)
class BetterThanChampion(Gate):
    """The challenger is better than the champion by more than ``margin``, both scored on the same rows.

    ``margin`` is in the metric's unit and follows its direction (for ``log_loss`` lower is better); a
    negative margin tolerates a loss smaller than it. Without a champion the gate passes, provided the
    challenger has the figure.
    """

    kind: ClassVar[str] = "better_than_champion"

    margin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _is_number(self.margin):
            raise _argument(f"gate {self.kind} on {self.metric} has no usable margin", "give a number")

    def check(self, figures: Figures) -> GateResult:
        name = f"{self.kind}:{self.metric}"
        observed = figures.challenger.get(self.metric)
        if not _is_number(observed):
            return _no_figure(name, self.metric, None)
        if figures.champion is None:
            return GateResult(
                gate=name, outcome=Outcome.PASSED, observed=observed, message="there is no champion to beat"
            )
        champion = figures.champion.get(self.metric)
        ahead = difference(self.metric, figures.challenger, figures.champion)
        if ahead is None or champion is None:
            return _no_figure(name, f"the champion's {self.metric}", None, observed)
        better = METRICS[self.metric].greater_is_better
        bar = champion + self.margin if better else champion - self.margin
        passed = ahead > self.margin
        return GateResult(
            gate=name, outcome=Outcome.PASSED if passed else Outcome.FAILED, observed=observed, threshold=bar,
            message=f"{self.metric} {observed:.6g} against the champion's {champion:.6g}: "
            + (f"better by {ahead:.3g}" if passed else f"not better by more than {self.margin:g}"),
        )  # fmt: skip


GATES: dict[str, type[Gate]] = {cls.kind: cls for cls in (MetricThreshold, BetterThanChampion)}


def gates_from(values: Sequence[Gate | Mapping[str, Any]]) -> tuple[Gate, ...]:
    """Gates from Python objects, or from dictionaries as a DAG file or a JSON document has them.

    :raises ArgumentError: ``argument.gate`` for an unknown gate, metric or field (the known ones are listed).

    >>> gates_from([{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.6}])
    (MetricThreshold(metric='roc_auc', minimum=0.6, maximum=None),)
    """
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        raise _argument("gates are a list", 'for example [{"gate": "metric_threshold", ...}]')
    return tuple(_gate(value) for value in values)


def gates_digest(gates: Sequence[Gate]) -> str:
    """What identifies a list of gates: an evaluation under other gates is another evaluation."""
    return digest_of([gate.to_json() for gate in gates])


def _gate(value: Gate | Mapping[str, Any]) -> Gate:
    if isinstance(value, Gate):
        return value
    kind = value.get("gate") if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping) or kind not in GATES:
        raise _argument(f"unknown gate {kind!r}", f"the known ones: {', '.join(GATES)}")
    cls = GATES[kind]
    known = [f.name for f in dataclasses.fields(cls)]
    fields = {key: item for key, item in value.items() if key != "gate"}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise _argument(f"gate {kind} has no {', '.join(unknown)}", f"it takes {', '.join(known)}")
    if "metric" not in fields:
        raise _argument(f"gate {kind} names no metric", f"add one of {', '.join(METRICS)}")
    return cls(**fields)


def _no_figure(gate: str, metric: str, threshold: float | None, observed: float | None = None) -> GateResult:
    return GateResult(
        gate=gate, outcome=Outcome.NO_DATA, observed=observed, threshold=threshold,
        message=f"{metric} was not measured, so the gate cannot pass",
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _argument(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.gate", todo=todo)
