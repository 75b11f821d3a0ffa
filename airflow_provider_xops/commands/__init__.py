"""The commands of `xops`: one module a subject; :mod:`airflow_provider_xops.cli` puts them together."""
