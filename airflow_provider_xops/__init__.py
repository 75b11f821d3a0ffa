"""DataOps and MLOps as one flow on Apache Airflow: from raw files to a traced prediction, and back."""

__all__ = ["__version__"]

__version__ = "0.1.0"
