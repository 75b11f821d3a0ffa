"""How sure the figures of a model are, and whether a difference between two models is more than chance.

Arrays in, records out: confidence intervals, paired tests of challenger against champion, calibration, and
the threshold that costs least. For evaluation, the gates and notebooks; nothing here knows of a lake.

>>> import numpy as np
>>> from airflow_provider_xops.training.metrics import Predictions, Task
>>> truth = np.arange(200.0)
>>> said = Predictions(labels=truth + np.tile([1.0, -3.0], 100))
>>> figure = intervals(Task.REGRESSION, truth, said, metrics=["mae"])["mae"]
>>> figure.value, round(figure.lower, 1), round(figure.upper, 1), figure.method
(2.0, 1.9, 2.1, 'bca')
"""

from __future__ import annotations

from airflow_provider_xops.evaluation.statistics.calibrating import calibration
from airflow_provider_xops.evaluation.statistics.comparing import compare, paired_difference
from airflow_provider_xops.evaluation.statistics.confidence import intervals
from airflow_provider_xops.evaluation.statistics.corrections import adjust
from airflow_provider_xops.evaluation.statistics.thresholds import choose_threshold

__all__ = ["adjust", "calibration", "choose_threshold", "compare", "intervals", "paired_difference"]
