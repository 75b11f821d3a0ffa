"""Why each prediction of a batch is what it is: the features that moved it most, with sign.

For batch scoring. Every explained answer is taken apart into a base (the mean answer over rows the model was
trained on) and one contribution a feature, which together are the answer (SHAP values, see
:mod:`airflow_provider_xops.evaluation._shap`); the largest go along with the prediction as its reasons, the
others as one sum. What is said of a row depends on the model, the row and the plan, never on the rows it
happened to be scored with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation._extras import needs
from airflow_provider_xops.evaluation._shap_asking import PERMUTATIONS, as_numbers, by_asking
from airflow_provider_xops.evaluation._shap_models import own_method
from airflow_provider_xops.serving._batch_columns import reason_names
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = ["ReasonPlan", "Reasoner", "Reasons"]

log = logging.getLogger(__name__)

MAX_TOP = 20
# So many features have fewer combinations than ten orders and their reverses have steps, or not many more.
EXACT_FEATURES = 8
# Of contributions that differ by less than this share of the largest, the earlier feature comes first:
# rounding must not decide about the order.
SAME_WITHIN = 1e-9


@dataclass(frozen=True, kw_only=True)
class ReasonPlan:
    """How the reasons are made.

    :param top: how many of them, 1 to 20; 0: none.
    :param background: how many training rows a feature's absence is imitated with.
    :param seed: which rows these are, and in which orders features join where orders are sampled.
    :param max_answers: how many rows the model may be asked about in one call of scoring, to explain them.
        Trees and linear models need no asking.
    :raises ArgumentError: ``argument.reasons``.
    """

    top: int = 3
    background: int = 50
    seed: int = 0
    max_answers: int = 200_000_000

    def __post_init__(self) -> None:
        lowest = {"top": 0, "background": 1, "seed": 0, "max_answers": 1}
        for name, least in lowest.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise _refused(f"{name} of the reasons is {str(value)[:40]!r}", f"give {least} or more")
        if self.top > MAX_TOP:
            raise _refused(f"{self.top} reasons are asked for", f"ask for {MAX_TOP} or fewer")

    @classmethod
    def of(cls, given: ReasonPlan | Mapping[str, Any] | int | None) -> ReasonPlan:
        """The plan that a number, or a mapping of its fields, stands for.

        >>> ReasonPlan.of(3) == ReasonPlan.of({"top": 3}), ReasonPlan.of(None).top
        (True, 0)
        """
        if isinstance(given, ReasonPlan):
            return given
        if given is None or isinstance(given, int):
            return cls(top=given or 0)
        unknown = sorted(set(given) - set(cls.__dataclass_fields__))
        if unknown:
            raise _refused(
                f"a plan of reasons says nothing of {unknown[0]!r}",
                f"use {', '.join(cls.__dataclass_fields__)}",
            )
        return cls(**dict(given))

    def fingerprint(self) -> list[Any]:
        """What of the plan decides about the rows that are written; nothing without reasons."""
        return [{**asdict(self), "max_answers": None}] if self.top else []


@dataclass(frozen=True)
class Reasons:
    """The reasons of some rows.

    :param features: rows x top, names; None where no feature is left that adds anything.
    :param contributions: rows x top, largest first, in the unit of the answer: the probability of the
        positive class (of several: of the predicted one), or the predicted number.
    :param base: a row, the mean answer over the background. :param rest: the sum of all other contributions:
        base, contributions and rest are the answer.
    """

    features: Any
    contributions: Any
    base: Any
    rest: Any

    def columns(self) -> dict[str, pa.Array]:
        """As the table of predictions has them."""
        found: list[Any] = []
        for place in range(self.features.shape[1]):
            found.append(pa.array(self.features[:, place].tolist(), pa.string()))
            found.append(pa.array(self.contributions[:, place], pa.float64(), from_pandas=True))
        found += [pa.array(self.base, pa.float64()), pa.array(self.rest, pa.float64())]
        return dict(zip(reason_names(self.features.shape[1]), found, strict=True))


class Reasoner:
    """Explains predictions of one model, batch by batch.

    :param estimator: the fitted model. :param background: rows of its training data, as it sees them.
    :param name: what the model is called in an error.
    :raises ArgumentError: ``argument.extra_missing`` without shap.

    >>> Reasoner(estimator, background, task=Task.CLASSIFICATION, name="late v3",
    ...          plan=ReasonPlan(top=3)).of(frame, said).features[0]  # doctest: +SKIP
    array(['dep_delay', 'origin', 'temp'], dtype=object)

    Trees and linear models, also behind encoders and scalers that work column by column (one-hot too), are
    explained without asking them. Of trees and linear regressions exactly, but for boosted classifiers, whose
    contributions to the log-odds are rescaled to the probability for each background row (Lundberg et al.
    2020, From local explanations to global understanding with explainable AI for trees). Every other model is
    asked what it answers when some of the features are a training row's: in every combination of up to eight
    features, else in ten orders and their reverses; the answers of a logistic regression to the same
    questions are computed.

    What it does not do: a contribution says what the model made of a value, not what caused the outcome.
    """

    def __init__(
        self, estimator: Any, background: pd.DataFrame, *, task: Task, name: str, plan: ReasonPlan
    ) -> None:
        needs("shap", extra="explain", what="reasons")
        self._estimator, self._background = estimator, background
        self._task, self._name, self._plan = task, name, plan
        self._own = own_method(estimator, background, task=task, name=name, exact=self._exact, seed=plan.seed)
        self._asked = 0
        log.info(
            "Reasons of predictions of %s: %s, %d background rows, %s.", name, self.method, len(background),
            f"{self.answers_per_row:,} answers of the model a row" if self.answers_per_row else "not asked",
        )  # fmt: skip

    @property
    def method(self) -> str:
        """How it explains: ``shap (tree)``, ``shap (linear)``, ``shap (exact)`` or ``shap (permutation)``;
        the latter two say ``, linear`` where the model's answers are computed, not asked for."""
        if self._own is not None:
            return self._own.method
        return f"shap ({'exact' if self._exact else 'permutation'})"

    @property
    def answers_per_row(self) -> int:
        """How many rows the model is asked about to explain one; 0 where it need not be asked."""
        return 0 if self._own is not None else self._answers

    def refuse_too_many(self, rows: int) -> None:
        """:raises ArgumentError: ``argument.reasons_cost``: explaining so many rows asks too much."""
        self._refuse(rows, rows * self.answers_per_row)

    def _refuse(self, rows: int, asked: int) -> None:
        if asked > self._plan.max_answers:
            raise ArgumentError(
                f"reasons for {rows:,} rows ask {self._name} about {asked:,} rows",
                code="argument.reasons_cost",
                why=f"they take {self._answers:,} answers a row; the limit is {self._plan.max_answers:,}",
                todo="score fewer partitions at a time, take a smaller background or a tree model, or raise"
                " max_answers of the reasons",
                context={"rows": rows, "answers": asked, "limit": self._plan.max_answers},
            )

    def of(self, frame: pd.DataFrame, said: Predictions) -> Reasons:
        """The reasons of the rows of a feature frame.

        :param said: what the model predicted for them.
        :raises ModelError: ``model.predict_failed``, ``model.classes_unknown``.
        :raises ArgumentError: ``argument.reasons_cost``: the algorithm for its kind does not add up for so
            many rows that asking about them is too much.
        """
        answer, outputs = as_numbers(said, task=self._task, name=self._name)
        values, base = self._taken_apart(frame, answer)
        rows = np.arange(len(frame))
        if len(outputs) == 1:
            output = np.zeros(len(frame), dtype=np.int64)
        else:
            output = pd.Index(outputs).get_indexer(pd.Index(said.labels))
        chosen, base = values[rows, :, output], base[rows, output]
        top = min(self._plan.top, frame.shape[1])
        order = _ranked(chosen)[:, :top]
        largest = np.take_along_axis(chosen, order, axis=1)
        rest = chosen.sum(axis=1) - largest.sum(axis=1)
        names = np.array([str(name) for name in frame.columns], dtype=object)[order]
        nothing = largest == 0
        names, largest = np.where(nothing, None, names), np.where(nothing, np.nan, largest)
        if top < self._plan.top:
            missing = (len(frame), self._plan.top - top)
            names = np.concatenate([names, np.full(missing, None, dtype=object)], axis=1)
            largest = np.concatenate([largest, np.full(missing, np.nan)], axis=1)
        return Reasons(names, largest, base, rest)

    @property
    def _answers(self) -> int:
        count = self._background.shape[1]
        asked: int = 2**count if self._exact else 2 * PERMUTATIONS * (count + 1)
        return asked * len(self._background)

    @property
    def _exact(self) -> bool:
        count = self._background.shape[1]
        return count <= EXACT_FEATURES

    def _taken_apart(self, frame: pd.DataFrame, answer: Any) -> tuple[Any, Any]:
        """Values (rows x features x outputs) and bases (rows x outputs)."""
        if self._own is None:
            return self._by_asking(frame)
        values, base, right = self._own.explain(frame, answer)
        wrong = np.flatnonzero(~right)
        if len(wrong):
            self._asked += len(wrong)
            self._refuse(self._asked, self._asked * self._answers)
            # Row by row, so that no row's reasons depend on its neighbors.
            log.info(
                "%d rows are explained by asking the model: their parts do not add up to its answer.",
                len(wrong),
            )
            rows = frame.iloc[wrong].reset_index(drop=True)
            values[wrong], base[wrong] = self._by_asking(rows)
        return values, base

    def _by_asking(self, frame: pd.DataFrame) -> tuple[Any, Any]:
        values, base = by_asking(
            self._estimator, frame, self._background, task=self._task, name=self._name,
            seed=self._plan.seed, exact=self._exact,
        )  # fmt: skip
        return values, np.tile(base, (len(frame), 1))


def _ranked(values: Any) -> Any:
    """The places of the features, largest contribution first; of equals the earlier one."""
    sizes = np.abs(values)
    largest = sizes.max(axis=1, initial=0.0, keepdims=True)
    steps = np.round(sizes / np.where(largest > 0, largest, 1.0) / SAME_WITHIN)
    return np.argsort(-steps, axis=1, kind="stable")


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.reasons", todo=todo)
