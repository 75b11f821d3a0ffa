"""Profiles: what the columns of a dataset hold, what changed, and which suite and steps follow from it.

For data engineers who meet a table for the first time, or again after it changed.
:mod:`~airflow_provider_xops.quality.profiling.profile` records a profile of a dataset version,
:mod:`~airflow_provider_xops.quality.profiling.compute` profiles anything else,
:mod:`~airflow_provider_xops.quality.profiling.suggest` turns profiles into a suite to review, and
:mod:`~airflow_provider_xops.quality.profiling.steps` into preparation steps.
"""
