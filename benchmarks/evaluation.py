"""The bootstrap interval of the AUC of 1 million rows, 2,000 resamples: a naive loop over ours.

``python -m benchmarks.evaluation [--json]``. The naive loop draws row numbers and asks scikit-learn's
``roc_auc_score``, 2,000 times; ``NAIVE`` resamples of it are timed and scaled up, because all of them would
take many minutes (``details`` says so). Both run in one thread. ``details`` has the standard error by both
(the naive one from ``SPREAD`` resamples of a part of the rows), DeLong's, every metric of a model, and a
comparison of two models.
"""

from __future__ import annotations

import math
import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import sklearn  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from airflow_provider_xops.evaluation.plan import MetricTest  # noqa: E402
from airflow_provider_xops.evaluation.statistics import compare, delong, intervals  # noqa: E402
from airflow_provider_xops.training.metrics import Predictions, Task  # noqa: E402
from benchmarks._harness import measure, median, report  # noqa: E402

ROWS = 1_000_000
RESAMPLES = 2_000
NAIVE = 5
SPREAD_ROWS, SPREAD = 20_000, 500
BUDGET = 20.0


def main() -> None:
    """Measure and report."""
    rng = np.random.default_rng(0)
    truth = (rng.random(ROWS) < 0.3).astype(int)
    said, other = (_model(rng, truth) for _ in range(2))
    scores = said.scores

    def ours() -> object:
        return intervals(
            Task.CLASSIFICATION, truth, said, metrics=["roc_auc"], resamples=RESAMPLES, method="bootstrap"
        )

    def one_naive() -> None:
        rows = rng.integers(0, ROWS, ROWS)
        roc_auc_score(truth[rows], scores[rows])

    seconds, naive = measure(ours, 5), measure(one_naive, NAIVE)
    everything = measure(
        lambda: intervals(Task.CLASSIFICATION, truth, said, resamples=RESAMPLES), 1, warmup=0
    )
    tests = [MetricTest(metric=name) for name in ("roc_auc", "log_loss")]
    both = measure(
        lambda: compare(Task.CLASSIFICATION, truth, said, other, tests=tests, resamples=RESAMPLES),
        1,
        warmup=0,
    )
    report(
        "evaluation",
        ratio=median(naive) * RESAMPLES / median(seconds),
        budget=BUDGET,
        better="higher",
        samples=seconds,
        details={
            "rows": ROWS,
            "resamples": RESAMPLES,
            "seconds": round(median(seconds), 3),
            "naive_one_resample_s": round(median(naive), 3),
            "naive_s_scaled_up": round(median(naive) * RESAMPLES, 1),
            "naive_resamples_timed": NAIVE,
            "threads": 1,
            "interval": _interval(Task.CLASSIFICATION, truth, said),
            "delong_interval": _delong(truth, scores),
            "standard_errors_of_part": _spread(rng, truth[:SPREAD_ROWS], scores[:SPREAD_ROWS]),
            "all_metrics_s": round(median(everything), 2),
            "comparison_of_two_models_s": round(median(both), 2),
            "numpy": np.__version__,
            "scikit_learn": sklearn.__version__,
        },
    )


def _model(rng: np.random.Generator, truth: np.ndarray) -> Predictions:
    scores = 1 / (1 + np.exp(-(truth - 1.0 + rng.normal(size=len(truth)))))
    probabilities = np.column_stack([1 - scores, scores])
    return Predictions(
        labels=(scores > 0.5).astype(int), classes=np.array([0, 1]), probabilities=probabilities
    )


def _interval(task: Task, truth: np.ndarray, said: Predictions) -> list[float]:
    figure = intervals(task, truth, said, metrics=["roc_auc"], resamples=RESAMPLES, method="bootstrap")[
        "roc_auc"
    ]
    return [round(end, 6) for end in (figure.lower, figure.upper) if end is not None]


def _delong(truth: np.ndarray, scores: np.ndarray) -> list[float]:
    both = delong.covariance(truth == 1, [scores])
    ends = delong.interval(both, 0.95)
    return [round(end, 6) for end in ends or ()]


def _spread(rng: np.random.Generator, truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The standard error of the AUC three ways, on rows few enough for the naive one."""
    naive = []
    for _ in range(SPREAD):
        rows = rng.integers(0, len(truth), len(truth))
        naive.append(roc_auc_score(truth[rows], scores[rows]))
    probabilities = np.column_stack([1 - scores, scores])
    said = Predictions(labels=truth, classes=np.array([0, 1]), probabilities=probabilities)
    ours = _interval(Task.CLASSIFICATION, truth, said)
    return {
        "naive": round(float(np.std(naive)), 6),
        "ours": round((ours[1] - ours[0]) / (2 * 1.959964), 6),
        "delong": round(math.sqrt(delong.covariance(truth == 1, [scores]).matrix[0, 0]), 6),
    }


if __name__ == "__main__":
    main()
