"""How a model is evaluated: what is measured, tested, sliced and disturbed, declared as data.

For :func:`airflow_provider_xops.evaluation.evaluate.evaluate`, its operator and the gates. A plan is plain
JSON in a DAG file or YAML; :func:`plan_from` reads it strictly, and its digest is part of what identifies an
evaluation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.training.metrics import METRICS

__all__ = [
    "BY_PARTITION",
    "CostPlan",
    "EvaluationPlan",
    "ExplanationPlan",
    "FairnessPlan",
    "LearningCurvePlan",
    "MetricTest",
    "NamedSlice",
    "RankingPlan",
    "RobustnessPlan",
    "SkewPlan",
    "SlicePlan",
    "plan_from",
]

CODE = "argument.plan"
# What ``cluster`` says for: the partition of each row.
BY_PARTITION = "__partition__"


class _Strict:
    """Unknown fields are errors, not silence."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": False}


@dataclass(frozen=True, kw_only=True)
class MetricTest(_Strict):
    """One statement about challenger and champion that is to be tested on their common rows.

    :param hypothesis: ``superiority``: better by more than ``margin``; ``non_inferiority``: not worse by
        ``margin`` or more.
    :param margin: in the metric's own unit, never negative.
    """

    metric: str
    hypothesis: Literal["superiority", "non_inferiority"] = "superiority"
    margin: float = 0.0

    def __post_init__(self) -> None:
        _known_metric(self.metric)
        if not 0 <= self.margin < float("inf"):
            raise _refused(f"the margin of a test on {self.metric} is {self.margin}", "give 0 or more")
        if self.hypothesis == "non_inferiority" and self.margin == 0:
            raise _refused(
                f"the non-inferiority test on {self.metric} has no margin",
                "say by how much the challenger may be worse: margin=0.005",
            )


@dataclass(frozen=True, kw_only=True)
class NamedSlice(_Strict):
    """Rows that somebody cares about: ``where`` is a DuckDB condition over the dataset's columns."""

    name: str
    where: str


@dataclass(frozen=True, kw_only=True)
class SlicePlan(_Strict):
    """Which parts of the rows are looked at on their own.

    :param named: slices by condition. :param by: columns of which every value is a slice.
    :param find: also search for weak slices, over the model's features and ``columns``.
    :param max_conditions: of a found slice, 1 or 2. :param min_rows: minimum support.
    :param limit: how many found slices are kept, the worst first.
    :param metric: what is shown of each slice; None: log loss, accuracy (without probabilities) or mae.
    """

    named: tuple[NamedSlice, ...] = ()
    by: tuple[str, ...] = ()
    find: bool = True
    columns: tuple[str, ...] = ()
    max_conditions: int = 2
    min_rows: int = 100
    limit: int = 10
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.max_conditions not in (1, 2):
            raise _refused(f"slices of {self.max_conditions} conditions", "give max_conditions 1 or 2")
        if self.min_rows < 2 or self.limit < 1:
            raise _refused("slices need a minimum support of 2 rows and a limit of 1 or more", "correct them")
        if self.metric is not None:
            _known_metric(self.metric)
        names = [each.name for each in dict.fromkeys(self.named)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise _refused(
                f"two slices with other conditions are both named {', '.join(twice)}",
                "name them apart: gates and reports go by the name",
            )


@dataclass(frozen=True, kw_only=True)
class FairnessPlan(_Strict):
    """Whether the model treats groups alike.

    :param attributes: columns of the dataset (need not be features); numbers are cut at ``cuts``.
    :param intersections: also look at the attributes' combinations.
    :param positive: the favorable class; None: the second one.
    :param min_rows: smaller groups are not compared.
    """

    attributes: tuple[str, ...]
    cuts: dict[str, tuple[float, ...]] = field(default_factory=dict)
    intersections: bool = False
    positive: str | float | None = None
    min_rows: int = 50

    def __post_init__(self) -> None:
        if not self.attributes or self.min_rows < 1:
            raise _refused("fairness needs attributes and a min_rows of 1 or more", "name a column")


@dataclass(frozen=True, kw_only=True)
class RobustnessPlan(_Strict):
    """How the metric degrades when the input gets worse.

    :param perturbations: ``noise`` (of numbers, in standard deviations), ``missing`` (share of cells),
        ``typos`` (share of category cells), ``shift`` (of numbers, in standard deviations, all rows alike).
    :param repeats: random draws a point. :param max_rows: a sample of the rows; None: all.
    """

    perturbations: tuple[Literal["noise", "missing", "typos", "shift"], ...] = (
        "noise",
        "missing",
        "typos",
        "shift",
    )
    levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    features: tuple[str, ...] = ()
    repeats: int = 3
    max_rows: int | None = 10_000

    def __post_init__(self) -> None:
        levels = bool(self.levels) and all(0 < level < float("inf") for level in self.levels)
        sizes = self.repeats >= 1 and (self.max_rows is None or self.max_rows >= 1)
        if not (self.perturbations and levels and sizes):
            raise _refused(
                "robustness needs perturbations, levels above 0, and repeats and max_rows of 1 or more",
                "give for example levels: [0.1, 0.2]",
            )


@dataclass(frozen=True, kw_only=True)
class ExplanationPlan(_Strict):
    """What the model rests on: permutation importance always, SHAP values where asked (extra ``explain``).

    :param max_rows: a sample of the rows. :param background: training rows that SHAP compares with.
    """

    repeats: int = 5
    max_rows: int = 5_000
    shap: bool = False
    shap_rows: int = 200
    background: int = 100

    def __post_init__(self) -> None:
        if min(self.repeats, self.max_rows, self.shap_rows, self.background) < 1:
            raise _refused("an explanation needs 1 or more repeats and rows of each kind", "correct them")


@dataclass(frozen=True, kw_only=True)
class LearningCurvePlan(_Strict):
    """Whether more data would help: the model is fitted again on growing shares of its training rows."""

    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    repeats: int = 1

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share <= 1 for share in self.shares) or self.repeats < 1:
            raise _refused(
                "a learning curve needs shares above 0 and at most 1, and 1 or more repeats",
                "give for example shares: [0.1, 0.5, 1.0]",
            )


@dataclass(frozen=True, kw_only=True)
class CostPlan(_Strict):
    """What mistakes cost, in any one unit of money or harm; right decisions cost nothing."""

    false_positive: float
    false_negative: float

    def __post_init__(self) -> None:
        costs = (self.false_positive, self.false_negative)
        if not all(0 <= cost < float("inf") for cost in costs) or not any(costs):
            raise _refused("costs are numbers of 0 or more, and one of them is above 0", "correct costs")


@dataclass(frozen=True, kw_only=True)
class RankingPlan(_Strict):
    """Rows are judged as ranked lists: ``group`` names the list of each row, the target is its relevance."""

    group: str
    at: tuple[int, ...] = (10,)

    def __post_init__(self) -> None:
        if not self.at or min(self.at) < 1:
            raise _refused("ranking.at needs depths of 1 or more", "give for example at: [5, 10]")


@dataclass(frozen=True, kw_only=True)
class SkewPlan(_Strict):
    """Training features against what scoring sees.

    :param table: the table that is scored; None: the one of the newest scoring run of this model's name.
    :param partitions: its newest so many partitions. :param threshold: of the statistic, above it fails.
    """

    table: str | None = None
    partitions: int = 7
    threshold: float = 0.2

    def __post_init__(self) -> None:
        if self.partitions < 1 or not 0 <= self.threshold < float("inf"):
            raise _refused("skew needs 1 or more partitions and a threshold of 0 or more", "correct them")


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan(_Strict):
    """Everything an evaluation does besides loading both models and predicting the same rows.

    :param metrics: which figures are computed; None: all of the task.
    :param confidence: of every interval and statement. :param resamples: of the bootstrap.
    :param cluster: a column (or ``__partition__``) whose values are resampled as wholes, where rows that
        share one are not independent: all flights of one day.
    :param tests: statements about challenger and champion; gates add the ones they need.
    :param correction: for the number of tests. :param candidates: how many challengers this one was chosen
        from, or will be: every test is corrected for them too.
    """

    confidence: float = 0.95
    resamples: int = 2_000
    seed: int = 0
    metrics: tuple[str, ...] | None = None
    cluster: str | None = None
    tests: tuple[MetricTest, ...] = ()
    correction: Literal["holm", "bonferroni", "benjamini_hochberg", "none"] = "holm"
    candidates: int = 1
    calibration_bins: int = 10
    slices: SlicePlan = field(default_factory=SlicePlan)
    explanation: ExplanationPlan = field(default_factory=ExplanationPlan)
    fairness: FairnessPlan | None = None
    robustness: RobustnessPlan | None = None
    learning_curve: LearningCurvePlan | None = None
    costs: CostPlan | None = None
    ranking: RankingPlan | None = None
    skew: SkewPlan | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise _refused(f"a confidence of {self.confidence}", "give for example 0.95")
        if self.resamples < 100:
            raise _refused(f"{self.resamples} resamples are too few for an interval", "give 100 or more")
        if self.candidates < 1:
            raise _refused(f"{self.candidates} candidates", "give 1 or more")
        if self.calibration_bins < 2:
            raise _refused(f"{self.calibration_bins} calibration bins", "give 2 or more")
        for metric in self.metrics or ():
            _known_metric(metric)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON, which :func:`plan_from` reads."""
        from pydantic import TypeAdapter

        plain: dict[str, Any] = TypeAdapter(EvaluationPlan).dump_python(self, mode="json")
        return plain

    def with_test(self, test: MetricTest) -> EvaluationPlan:
        """The plan with one more test, if it does not have it."""
        return self if test in self.tests else dataclasses.replace(self, tests=(*self.tests, test))


def plan_from(value: EvaluationPlan | Mapping[str, Any] | None) -> EvaluationPlan:
    """A plan from its JSON form; None gives the default one.

    :raises ArgumentError: ``argument.plan``, naming the field.

    >>> plan_from({"resamples": 500, "slices": {"by": ["origin"]}}).slices.by
    ('origin',)
    """
    if value is None:
        return EvaluationPlan()
    if isinstance(value, EvaluationPlan):
        return value
    from pydantic import TypeAdapter, ValidationError

    try:
        plan: EvaluationPlan = TypeAdapter(EvaluationPlan).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the plan"
        raise _refused(f"the evaluation plan cannot be read: {place}: {first['msg']}", "correct it") from None
    return plan


def _known_metric(metric: str) -> None:
    if metric not in METRICS:
        raise _refused(f"the metric {metric!r} is unknown", f"use one of {', '.join(METRICS)}")


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code=CODE, todo=todo)
