"""Gates about parts of an evaluation: slices, groups, calibration, robustness.

Each reads the figures that the evaluation has measured, and widens the plan so that they are.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from airflow_provider_xops.evaluation.gates.base import Case, Gate, is_number, known_metric, refused
from airflow_provider_xops.evaluation.plan import EvaluationPlan, FairnessPlan, NamedSlice, RobustnessPlan
from airflow_provider_xops.evaluation.slices import VALUES
from airflow_provider_xops.records import (
    Evaluation,
    FairnessFigure,
    GateResult,
    RobustnessFigure,
    SliceFigure,
)
from airflow_provider_xops.training.metrics import METRICS

__all__ = ["CalibrationError", "FairnessGap", "NoWeakSlice", "NoWorseSlice", "RobustnessLoss"]

# Of a slice, in any plan.
FEWEST_ROWS = 2


@dataclass(frozen=True, kw_only=True)
class SliceGate(Gate):
    """A gate about every slice of at least ``min_rows`` rows that the evaluation has kept.

    :param by: columns whose values are slices. :param named: slices by condition. What is named here is
        measured, and no data where it cannot be; slices that the plan names or finds are judged too.
    """

    by: tuple[str, ...] = ()
    named: tuple[NamedSlice, ...] = ()
    min_rows: int = 100

    def __post_init__(self) -> None:
        named = [NamedSlice(**each) if isinstance(each, dict) else each for each in self.named]
        object.__setattr__(self, "named", tuple(named))
        super().__post_init__()
        if self.min_rows < 1:
            raise refused(f"gate {self.kind} has no usable min_rows", "give a whole number of 1 or more")

    def widen(self, plan: EvaluationPlan) -> EvaluationPlan:
        slices = plan.slices
        wider = dataclasses.replace(
            slices,
            by=tuple(dict.fromkeys((*slices.by, *self.by))),
            named=tuple(dict.fromkeys((*slices.named, *self.named))),
            # What this gate judges must not be left out as too small.
            min_rows=min(slices.min_rows, max(self.min_rows, FEWEST_ROWS)),
        )
        return dataclasses.replace(plan, slices=wider)

    def judged(self, evaluation: Evaluation | None) -> list[SliceFigure] | GateResult:
        """The slices that are large enough; the answer where there are none, or one named here is missing."""
        slices = [each for each in (evaluation.slices if evaluation else ()) if each.rows >= self.min_rows]
        names = {each.name for each in slices}
        missing = [each.name for each in self.named if each.name not in names]
        missing += [
            column
            for column in self.by
            if not any(name.startswith((f"{column} = ", f"{column} is ")) for name in names)
        ]
        if missing:
            return self.no_data(
                f"no slice of {self.min_rows} rows or more was measured for {', '.join(missing)}"
            )
        crowded = [column for column in self.by if self._left_out(evaluation, column)]
        if crowded:
            return self.no_data(
                f"of {', '.join(crowded)} only the {VALUES} most frequent values were measured, and others"
                f" may have {self.min_rows} rows too (name the slices that matter, or give a larger min_rows)"
            )
        if not slices:
            return self.no_data(
                f"no slice of {self.min_rows} rows or more was measured (name columns with `by`)"
            )
        return slices

    def _left_out(self, evaluation: Evaluation | None, column: str) -> bool:
        """Whether a column may have values of enough rows that were not measured, being too many."""
        prefix = f"{column} = "
        values = {
            each.name: each.rows
            for each in (evaluation.slices if evaluation else ())
            if not each.found and each.name.startswith(prefix)
        }
        if evaluation is None or len(values) < VALUES:
            return False
        return evaluation.selection.rows - sum(values.values()) >= self.min_rows


@dataclass(frozen=True, kw_only=True)
class NoWorseSlice(SliceGate):
    """On no slice is the challenger worse than the champion by more than ``margin``.

    :param margin: in the metric's unit, 0 or more.
    :param beyond_chance: True: a slice counts as worse only if the whole interval of the difference is beyond
        the margin; False: the difference alone is enough.

    Without a champion the gate passes, provided there are slices with a figure.

    The intervals of all slices hold together at the evaluation's confidence, so that one slice of many does
    not seem worse by chance.
    """

    kind: ClassVar[str] = "no_worse_slice"

    margin: float = 0.0
    beyond_chance: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin < 0:
            raise refused(f"gate {self.kind} has no usable margin", "give 0 or more, in the metric's unit")

    def check(self, case: Case) -> GateResult:
        slices = self.judged(case.evaluation)
        if isinstance(slices, GateResult):
            return slices
        unmeasured = [each for each in slices if not is_number(each.value)]
        if unmeasured:
            return self.no_data(f"{len(unmeasured)} of {len(slices)} slices have no figure", -self.margin)
        if case.evaluation is None or case.evaluation.champion is None:
            return self.passed(
                float(len(slices)), None, f"no champion to be worse than on {len(slices)} slices"
            )
        ahead = [self._ahead(each) for each in slices]
        known = [each for each in ahead if each is not None]
        if len(known) < len(slices):
            return self.no_data(
                f"{len(slices) - len(known)} of {len(slices)} slices have no comparison with the champion",
                -self.margin,
            )
        # The smallest advantage; with beyond_chance the best that the interval leaves possible.
        worst = min(known)
        place = slices[known.index(worst)]
        by = f"{place.metric} {place.name}: {worst:+.3g} in the metric's better direction"
        if worst < -self.margin:
            return self.failed(worst, -self.margin, f"worse than the champion on {place.rows} rows, {by}")
        return self.passed(worst, -self.margin, f"not worse on any of {len(slices)} slices")

    def _ahead(self, figure: SliceFigure) -> float | None:
        """By how much the challenger is better on a slice (negative: worse); None where it is not known."""
        better = METRICS[figure.metric].greater_is_better if figure.metric in METRICS else None
        ends = (
            figure.champion_difference, figure.champion_difference_lower, figure.champion_difference_upper
        )  # fmt: skip
        if better is None or not is_number(ends[0]) or not is_number(figure.champion):
            return None
        chosen = (ends[2] if better else ends[1]) if self.beyond_chance else ends[0]
        if chosen is None or not is_number(chosen):
            return None
        return chosen if better else -chosen


@dataclass(frozen=True, kw_only=True)
class NoWeakSlice(SliceGate):
    """On no slice is the challenger worse than on the other rows, beyond chance and by more than ``margin``.

    :param margin: the shortfall against the other rows that is tolerated, in the metric's unit.
    """

    kind: ClassVar[str] = "no_weak_slice"

    margin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin < 0:
            raise refused(f"gate {self.kind} has no usable margin", "give 0 or more, in the metric's unit")

    def check(self, case: Case) -> GateResult:
        slices = self.judged(case.evaluation)
        if isinstance(slices, GateResult):
            return slices
        short = [self._shortfall(each) for each in slices]
        known = [each for each in short if each is not None]
        if len(known) < len(slices):
            return self.no_data(
                f"{len(slices) - len(known)} of {len(slices)} slices have no figure to compare", 0.0
            )
        untested = [
            each
            for each, by in zip(slices, known, strict=True)
            if by > self.margin and not is_number(each.adjusted_p_value)
        ]
        if untested:
            return self.no_data(
                f"{len(untested)} of {len(slices)} slices are worse and were not tested against the rest", 0.0
            )
        weak = [each for each, by in zip(slices, known, strict=True) if each.weak and by > self.margin]
        if weak:
            names = ", ".join(each.name for each in weak[:3]) + (", ..." if len(weak) > 3 else "")
            return self.failed(
                float(len(weak)), 0.0, f"{len(weak)} of {len(slices)} slices are weak: {names}"
            )
        return self.passed(0.0, 0.0, f"none of {len(slices)} slices is weak beyond {self.margin:g}")

    def _shortfall(self, figure: SliceFigure) -> float | None:
        value, rest = figure.value, figure.rest
        if figure.metric not in METRICS or value is None or rest is None:
            return None
        if not is_number(value) or not is_number(rest):
            return None
        return rest - value if METRICS[figure.metric].greater_is_better else value - rest


@dataclass(frozen=True, kw_only=True)
class FairnessGap(Gate):
    """Groups of people are treated alike: the largest gap between two groups is at most ``maximum``.

    :param attribute: the column whose values are the groups.
    :param metric: a fairness criterion (``demographic_parity``, ``equal_opportunity``, ``equalized_odds``) or
        a metric by group (``accuracy``).
    :param maximum: of the gap. :param minimum_ratio: of the smallest group's value to the largest's, such as
        0.8 for the four-fifths rule. One of the two, or both.
    :param bound: ``value``: the measured gap; ``upper``: the upper end of its interval, which says that the
        true gap is below the maximum with the evaluation's confidence.

    What it does not do: groups with too few rows are not compared; the answer says how many there are.
    """

    kind: ClassVar[str] = "fairness_gap"

    attribute: str
    metric: str
    maximum: float | None = None
    minimum_ratio: float | None = None
    bound: Literal["value", "upper"] = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = [limit for limit in (self.maximum, self.minimum_ratio) if limit is not None]
        if not limits or min(limits) < 0:
            raise refused(
                f"gate {self.kind} on {self.attribute} has no usable limit",
                "give maximum (of the gap), minimum_ratio, or both, as numbers of 0 or more",
            )
        if self.minimum_ratio is not None and self.minimum_ratio > 1:
            raise refused(f"gate {self.kind} on {self.attribute} can never pass", "a ratio is at most 1")

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.attribute}:{self.metric}"

    def widen(self, plan: EvaluationPlan) -> EvaluationPlan:
        fairness = plan.fairness
        if fairness is None:
            return dataclasses.replace(plan, fairness=FairnessPlan(attributes=(self.attribute,)))
        if self.attribute in fairness.attributes:
            return plan
        wider = dataclasses.replace(fairness, attributes=(*fairness.attributes, self.attribute))
        return dataclasses.replace(plan, fairness=wider)

    def check(self, case: Case) -> GateResult:
        found = [
            figure
            for figure in (case.evaluation.fairness if case.evaluation else ())
            if figure.attribute == self.attribute and self.metric in (figure.metric, figure.criterion)
        ]
        if not found:
            return self.no_data(f"{self.metric} by {self.attribute} was not measured", self.maximum)
        # A criterion may be measured by several metrics: each of them must meet it.
        answers = [self._answer_to(figure) for figure in found]
        return min(answers, key=lambda answer: ("failed", "no_data", "passed").index(answer.outcome.value))

    def _answer_to(self, figure: FairnessFigure) -> GateResult:
        compared = [group for group in figure.groups if is_number(group.value)]
        apart = f"{len(compared)} groups compared"
        apart += f", {len(figure.left_out)} with too few rows left out" if figure.left_out else ""
        gap = figure.gap if self.bound == "value" else figure.gap_upper
        if len(compared) < 2 or gap is None or not is_number(gap) or gap < 0 or not is_number(figure.gap):
            return self.no_data(f"the gap of {self.metric} was not measured ({apart})", self.maximum)
        end = "" if self.bound == "value" else "upper end of the "
        if self.maximum is not None and gap > self.maximum:
            return self.failed(gap, self.maximum, f"{end}gap {gap:.4g} is above {self.maximum:g} ({apart})")
        if self.minimum_ratio is not None:
            ratio = figure.ratio
            if ratio is None or not is_number(ratio):
                return self.no_data(f"the ratio of {self.metric} was not measured ({apart})")
            if ratio < self.minimum_ratio:
                return self.failed(
                    ratio, self.minimum_ratio, f"ratio {ratio:.4g} is below {self.minimum_ratio:g} ({apart})"
                )
            if self.maximum is None:
                return self.passed(ratio, self.minimum_ratio, f"ratio {ratio:.4g} is large enough ({apart})")
        return self.passed(gap, self.maximum, f"{end}gap {gap:.4g} is small enough ({apart})")


@dataclass(frozen=True, kw_only=True)
class CalibrationError(Gate):
    """Predicted probabilities mean what they say: the expected calibration error is at most ``maximum``.

    :param bound: the measured error, or the ``upper`` end of its interval.
    :param of: ``expected`` (mean over the bins) or ``maximum`` (the worst bin, which has no interval).
    """

    kind: ClassVar[str] = "calibration_error"

    maximum: float
    bound: Literal["value", "upper"] = "value"
    of: Literal["expected", "maximum"] = "expected"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum < 0:
            raise refused(f"gate {self.kind} has no usable maximum", "give a number of 0 or more")
        if self.of == "maximum" and self.bound == "upper":
            raise refused(f"gate {self.kind} of the worst bin has no upper bound", 'leave out "bound"')

    def check(self, case: Case) -> GateResult:
        figures = case.evaluation.calibration if case.evaluation else None
        error: Any = None
        if figures is not None and self.of == "maximum":
            error = figures.maximum_error
        elif figures is not None and is_number(figures.expected_error):
            error = figures.expected_error if self.bound == "value" else figures.expected_error_upper
        if not is_number(error) or error < 0:
            return self.no_data("calibration was not measured", self.maximum)
        said = f"{self.of} calibration error {error:.4g}" + (" (upper end)" if self.bound == "upper" else "")
        if error > self.maximum:
            return self.failed(error, self.maximum, f"{said} is above {self.maximum:g}")
        return self.passed(error, self.maximum, f"{said} is small enough")


@dataclass(frozen=True, kw_only=True)
class RobustnessLoss(Gate):
    """With worse input the metric loses at most ``maximum``.

    :param perturbation: ``noise``, ``missing``, ``typos`` or ``shift``.
    :param level: how strong, in the perturbation's unit: a share of cells, or standard deviations.
    :param metric: whose loss; None: of every metric that was measured.
    """

    kind: ClassVar[str] = "robustness_loss"

    perturbation: Literal["noise", "missing", "typos", "shift"]
    level: float
    maximum: float
    metric: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level <= 0:
            raise refused(f"gate {self.kind} on {self.perturbation} has no level", "give one above 0")
        if self.metric is not None:
            known_metric(self.kind, self.metric)

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.perturbation}:{self.level:g}"

    def widen(self, plan: EvaluationPlan) -> EvaluationPlan:
        robustness = plan.robustness
        if robustness is None:
            robustness = RobustnessPlan(perturbations=(self.perturbation,), levels=(self.level,))
        kinds, levels = robustness.perturbations, robustness.levels
        wider = dataclasses.replace(
            robustness,
            perturbations=kinds if self.perturbation in kinds else (*kinds, self.perturbation),
            levels=levels if self.level in levels else tuple(sorted((*levels, self.level))),
        )
        return dataclasses.replace(plan, robustness=wider)

    def check(self, case: Case) -> GateResult:
        found: list[RobustnessFigure] = [
            figure
            for figure in (case.evaluation.robustness if case.evaluation else ())
            if figure.perturbation == self.perturbation
            and is_number(figure.level)
            and abs(figure.level - self.level) < 1e-9
            and self.metric in (None, figure.metric)
        ]
        losses = [figure.loss for figure in found if figure.loss is not None and is_number(figure.loss)]
        if not found or len(losses) < len(found):
            return self.no_data(f"{self.perturbation} at {self.level:g} was not measured", self.maximum)
        worst = max(losses)
        said = f"{self.perturbation} at {self.level:g} loses {worst:.4g}"
        if worst > self.maximum:
            return self.failed(worst, self.maximum, f"{said}, more than {self.maximum:g}")
        return self.passed(worst, self.maximum, said)
