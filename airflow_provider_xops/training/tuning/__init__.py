"""Search for the parameters of an estimator, by cross-validation on the training rows of a split.

:func:`airflow_provider_xops.training.tuning.study.tune` is the whole search. Optuna proposes; what was tried
is kept in MLflow as nested runs, or in a database that several workers share.
"""
