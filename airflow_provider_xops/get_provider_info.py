"""What Airflow learns about this provider: connection forms, operators, links, configuration.

For Airflow's provider discovery, which calls :func:`get_provider_info` in every process, before anything else
works: an error here would take down all of Airflow. So this module imports nothing and computes nothing; it
returns a literal. ``tests/unit/test_get_provider_info.py`` holds it against both of Airflow's own schemas.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, a fresh literal at every call.

    Takes nothing, raises nothing, imports nothing. It does not check that the named modules import: the tests
    do.
    """
    return {
        "package-name": "airflow-provider-xops",
        "name": "XOps",
        "description": "DataOps and MLOps as one flow: from raw files to a traced prediction, and back.",
        "integrations": [
            {
                "integration-name": "XOps",
                "external-doc-url": "https://github.com/airflow-provider-xops/airflow-provider-xops#readme",
                "tags": ["software"],
            },
        ],
        "hooks": [
            {
                "integration-name": "XOps",
                "python-modules": [
                    "airflow_provider_xops.hooks.lake",
                    "airflow_provider_xops.hooks.mlflow",
                    "airflow_provider_xops.hooks.serving",
                ],
            },
        ],
        "operators": [
            {
                "integration-name": "XOps",
                "python-modules": [
                    "airflow_provider_xops.operators.approval",
                    "airflow_provider_xops.operators.data",
                    "airflow_provider_xops.operators.model",
                ],
            },
        ],
        "sensors": [
            {
                "integration-name": "XOps",
                "python-modules": [
                    "airflow_provider_xops.sensors.dataset",
                    "airflow_provider_xops.sensors.model",
                ],
            },
        ],
        "triggers": [
            {
                "integration-name": "XOps",
                "python-modules": [
                    "airflow_provider_xops.triggers.dataset",
                    "airflow_provider_xops.triggers.deployment",
                    "airflow_provider_xops.triggers.model",
                ],
            },
        ],
        "task-decorators": [
            {
                "name": "train_model",
                "class-name": "airflow_provider_xops.decorators.train_model.train_model_task",
            },
        ],
        "connection-types": [
            {
                "connection-type": "xops_lake",
                "hook-class-name": "airflow_provider_xops.hooks.lake.LakeHook",
                "hook-name": "XOps lake",
                "ui-field-behaviour": {
                    "hidden-fields": ["port", "schema"],
                    "relabeling": {
                        "host": "Lake URI",
                        "login": "Access key ID",
                        "password": "Secret access key",
                    },
                    "placeholders": {"host": "/data/lake or s3://bucket/lake"},
                },
                "conn-fields": {
                    "aws_conn_id": {
                        "label": "AWS connection",
                        "description": "Take credentials, region and endpoint from this connection (needs the"
                        " Amazon provider), asked for again at every open, so short-lived ones work.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "endpoint_url": {
                        "label": "S3 endpoint",
                        "description": "Address of an S3-compatible server; empty for AWS itself.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "region": {"label": "Region", "schema": {"type": ["string", "null"]}},
                    "storage_options": {
                        "label": "Storage options",
                        "description": 'Further object store options: {"AWS_ALLOW_HTTP": "true"}.',
                        "schema": {"type": ["string", "null"], "format": "json"},
                    },
                    "lake_id": {
                        "label": "Expected lake ID",
                        "description": "Refuse any lake but this one (`xops lake init` printed its UUID).",
                        "schema": {"type": ["string", "null"]},
                    },
                    "timeout": {
                        "label": "Timeout",
                        "description": "Seconds one request to the storage may take.",
                        "schema": {"type": ["number", "null"], "minimum": 1},
                    },
                },
            },
            {
                "connection-type": "xops_mlflow",
                "hook-class-name": "airflow_provider_xops.hooks.mlflow.MlflowHook",
                "hook-name": "XOps MLflow",
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {"host": "Tracking URI or host", "schema": "Scheme (http or https)"},
                    "placeholders": {"host": "https://mlflow.example.com", "schema": "http"},
                },
                "conn-fields": {
                    "token": {
                        "label": "Token",
                        "description": "Bearer token; goes before login and password.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "ui_url": {
                        "label": "UI address",
                        "description": "Where a browser finds MLflow, if not at the tracking URI.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "workspace": {"label": "Workspace", "schema": {"type": ["string", "null"]}},
                    "timeout": {
                        "label": "Timeout",
                        "description": "Seconds one request may take.",
                        "schema": {"type": ["integer", "null"], "minimum": 1},
                    },
                    "max_retries": {
                        "label": "Retries",
                        "description": "How often one request is repeated before the task fails.",
                        "schema": {"type": ["integer", "null"], "minimum": 0},
                    },
                    "backoff_factor": {
                        "label": "Backoff",
                        "description": "Seconds before the first repetition; then twice as long each time.",
                        "schema": {"type": ["number", "null"], "minimum": 0},
                    },
                },
            },
            {
                "connection-type": "xops_serving",
                "hook-class-name": "airflow_provider_xops.hooks.serving.ServingHook",
                "hook-name": "XOps serving",
                "ui-field-behaviour": {
                    "hidden-fields": ["login"],
                    "relabeling": {
                        "host": "Servers",
                        "password": "API key",
                        "schema": "Scheme (http or https)",
                    },
                    "placeholders": {"host": "http://models-1:8080, http://models-2:8080"},
                },
                "conn-fields": {
                    "kind": {
                        "label": "Kind",
                        "description": "xops: replicas of `xops serve`. v2: servers of the Open Inference"
                        " Protocol with a model repository. sagemaker: an endpoint of Amazon SageMaker.",
                        "schema": {"type": "string", "enum": ["xops", "v2", "sagemaker"], "default": "xops"},
                    },
                    "timeout": {
                        "label": "Timeout",
                        "description": "Seconds one request may take.",
                        "schema": {"type": ["number", "null"], "minimum": 1},
                    },
                    "repository": {
                        "label": "Model repository",
                        "description": "v2: the folder the servers read models from, as the workers see it.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "endpoint_name": {
                        "label": "Endpoint",
                        "description": "sagemaker: the endpoint's name.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "aws_conn_id": {
                        "label": "AWS connection",
                        "description": "sagemaker: credentials and region (needs the Amazon provider).",
                        "schema": {"type": ["string", "null"]},
                    },
                    "region": {"label": "Region", "schema": {"type": ["string", "null"]}},
                    "options": {
                        "label": "Options",
                        "description": "What only one kind of target has; see docs/deployment.md.",
                        "schema": {"type": ["string", "null"], "format": "json"},
                    },
                },
            },
        ],
        "extra-links": [
            "airflow_provider_xops.links.evidence.ControlChartsLink",
            "airflow_provider_xops.links.evidence.DataDocsLink",
            "airflow_provider_xops.links.evidence.EvaluationReportLink",
            "airflow_provider_xops.links.evidence.EvidenceLink",
            "airflow_provider_xops.links.evidence.ModelCardLink",
            "airflow_provider_xops.links.evidence.ProfileLink",
            "airflow_provider_xops.links.evidence.QuarantineReportLink",
            "airflow_provider_xops.links.evidence.ValidationReportLink",
            "airflow_provider_xops.links.mlflow.MlflowModelVersionLink",
            "airflow_provider_xops.links.mlflow.MlflowRunLink",
            "airflow_provider_xops.links.serving.ServingLink",
        ],
        # No option has a default: Airflow would report it as configured, and hide the environment's.
        "config": {
            "xops": {
                "description": "Defaults of the XOps provider. An operator's argument and a connection's"
                " field go before these; an ``XOPS_*`` environment variable comes after them.",
                "options": {
                    "lake_uri": {
                        "description": "The lake to use where the connection names none or does not exist.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://bucket/lake",
                        "default": None,
                    },
                    "lake_id": {
                        "description": "Refuse any lake but this one (``xops lake init`` printed its UUID).",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "4b0c6a1e-5a0f-4e0c-9a53-0c2f3b9d7e11",
                        "default": None,
                    },
                    "lake_timeout_s": {
                        "description": "Seconds one request to the lake's storage may take (30).",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": None,
                    },
                    "mlflow_tracking_uri": {
                        "description": "The MLflow server where the connection names none or does not exist.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://mlflow.example.com",
                        "default": None,
                    },
                    "mlflow_ui_url": {
                        "description": "Where a browser finds MLflow, if not at the tracking URI.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://mlflow.example.com",
                        "default": None,
                    },
                    "mlflow_timeout_s": {
                        "description": "Seconds one request to MLflow may take (15).",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": None,
                    },
                    "mlflow_max_retries": {
                        "description": "How often one request to MLflow is repeated (2).",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": None,
                    },
                    "mlflow_backoff_factor": {
                        "description": "Seconds before the first repetition (1); then doubling.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": None,
                    },
                },
            },
        },
    }
