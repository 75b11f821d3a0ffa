"""Golden requests: rows of the holdout whose predictions were recorded at training, asked of what is served.

For the rollout and the check after it. A version that answers otherwise than at training (another library,
another file, another version behind the address) is found out here, before callers get its answers.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import GateResult, ModelVersion, Outcome
from airflow_provider_xops.serving.targets.base import Answer, ServingBackend

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GoldenRows", "Judged", "ask_golden", "judge_answers"]

PREDICTIONS, SCORES, VERSION = "golden_predictions", "golden_scores", "served_version"


@dataclass(frozen=True, kw_only=True)
class GoldenRows:
    """The rows to ask about, proved to be the recorded ones; empty where the model has none."""

    frame: pd.DataFrame = field(repr=False)

    @classmethod
    def of(cls, lake: Lake, model: ModelVersion) -> GoldenRows:
        """The golden rows of a model from its holdout.

        :raises DataError: the holdout's rows are not the recorded ones any more (``data.selection_changed``).
        """
        from airflow_provider_xops.serving._smoke_checks import Rows

        rows = Rows.of(lake, model, sizes=(1,))
        return cls(frame=rows.frame.iloc[list(rows.golden)])

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What came of asking: a gate a subject, which versions answered how often, and the slowest ms."""

    gates: tuple[GateResult, ...]
    served: Mapping[int, int]
    slowest_ms: float | None = None

    @property
    def outcome(self) -> Outcome:
        """Passed only if something was compared and everything is as recorded."""
        found = {gate.outcome for gate in self.gates}
        for worst in (Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA):
            if worst in found:
                return worst
        return Outcome.PASSED if self.gates else Outcome.NO_DATA

    @property
    def message(self) -> str:
        """Why not, in one line; empty if passed."""
        return "; ".join(
            f"{gate.gate}: {gate.message}" for gate in self.gates if gate.outcome is not Outcome.PASSED
        )


def ask_golden(
    backend: ServingBackend,
    rows: GoldenRows,
    model: ModelVersion,
    *,
    alias: str,
    version: int | None,
    tolerance: float,
) -> Judged:
    """Ask every replica the golden rows, and hold the answers against what is recorded.

    :param version: the one to ask; None: whichever serves, which must be ``model``.
    :raises UnavailableError: a replica did not answer.
    """
    if not len(rows):
        why = "no predictions are on record" if model.golden is None else "no holdout rows are on record"
        missing = GateResult(gate=PREDICTIONS, outcome=Outcome.NO_DATA, message=why)
        return Judged(gates=(missing,), served={})
    answers = backend.ask(model, rows.frame, alias=alias, version=version)
    return judge_answers(answers, model, tolerance=tolerance)


def judge_answers(answers: Sequence[Answer], model: ModelVersion, *, tolerance: float) -> Judged:
    """Hold answers to the golden rows against the record: each replica's, the worst counts.

    >>> judge_answers((), None, tolerance=0).outcome
    <Outcome.NO_DATA: 'no_data'>
    """
    if not answers:
        return Judged(
            gates=(GateResult(gate=PREDICTIONS, outcome=Outcome.NO_DATA, message="nobody answered"),),
            served={},
        )
    served = collections.Counter(answer.version for answer in answers if answer.version is not None)
    gates = [_version(answers, model), _predictions(answers, model, tolerance)]
    if model.golden is not None and model.golden.scores:
        with_scores = [answer for answer in answers if answer.scores is not None]
        if with_scores:
            gates.append(_scores(with_scores, model, tolerance))
    return Judged(
        gates=tuple(gate for gate in gates if gate is not None),
        served=dict(served),
        slowest_ms=1000 * max(answer.seconds for answer in answers),
    )


def _version(answers: Sequence[Answer], model: ModelVersion) -> GateResult | None:
    """That whoever answered is the version meant; nothing where no answer names one."""
    named = [answer for answer in answers if answer.version is not None]
    if not named:
        return None
    others = sorted({each.version or 0 for each in named if each.version != model.version})
    return GateResult(
        gate=VERSION,
        outcome=Outcome.FAILED if others else Outcome.PASSED,
        observed=float(sum(answer.version == model.version for answer in named)),
        threshold=float(len(named)),
        message=f"answered by {', '.join(f'v{each}' for each in others)}, not v{model.version}"
        if others
        else "",
    )


def _predictions(answers: Sequence[Answer], model: ModelVersion, tolerance: float) -> GateResult:
    from airflow_provider_xops.serving._smoke_checks import _task
    from airflow_provider_xops.serving._smoke_requests import compare_labels

    golden = model.golden
    if golden is None:
        return GateResult(gate=PREDICTIONS, outcome=Outcome.NO_DATA, message="no predictions are on record")
    count, worst, wrong = len(golden.rows), 0.0, []
    for answer in answers:
        if answer.status != 200 or answer.predictions is None or len(answer.predictions) != count:
            wrong.append(f"{answer.replica} answered {count} rows with {answer.status}")
            continue
        compared = compare_labels(_task(model), golden, range(count), list(answer.predictions))
        worst = max(worst, compared.apart if compared.apart is not None else float("inf"))
        if not compared.within(tolerance):
            wrong.append(f"{answer.replica} predicts {compared.different} of {count} rows otherwise")
    return _gate(
        PREDICTIONS, wrong, worst, tolerance, f"{count} rows on {len(answers)} replicas as at training"
    )


def _scores(answers: Sequence[Answer], model: ModelVersion, tolerance: float) -> GateResult:
    from airflow_provider_xops.serving._smoke_requests import compare_scores

    assert model.golden is not None
    worst, wrong = 0.0, []
    for answer in answers:
        compared = compare_scores(model.golden, list(answer.scores or ()))
        worst = max(worst, compared.apart if compared.apart is not None else float("inf"))
        if not compared.within(tolerance):
            wrong.append(f"{answer.replica} gives other probabilities")
    return _gate(SCORES, wrong, worst, tolerance, "as at training")


def _gate(name: str, wrong: Sequence[str], worst: float, tolerance: float, good: str) -> GateResult:
    return GateResult(
        gate=name,
        outcome=Outcome.FAILED if wrong else Outcome.PASSED,
        observed=worst if worst != float("inf") else None,
        threshold=tolerance,
        message="; ".join(wrong[:3]) if wrong else good,
    )
