"""The one place that knows which Airflow is running: every name of Airflow the surface uses comes from here.

For the modules of the Airflow surface (hooks, operators, links). Behind it is Airflow's own compatibility
provider, which finds each name where Airflow 3.1, 3.2 and 3.3 keep it. ``ObjectStoragePath`` is a function
here, because importing it costs what all other names together do not.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    Asset,
    AssetAlias,
    BaseHook,
    BaseOperator,
    BaseOperatorLink,
    BaseSensorOperator,
    BranchMixIn,
    PokeReturnValue,
    conf,
    mask_secret,
)
from airflow.sdk.definitions.asset import AssetRef

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection, Context

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSkipException",
    "Asset",
    "AssetAlias",
    "AssetRef",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "BranchMixIn",
    "Connection",
    "Context",
    "PokeReturnValue",
    "conf",
    "mask_secret",
    "object_storage_path",
    "response_timeout_argument",
]


def object_storage_path(uri: str, *, conn_id: str | None = None) -> Any:
    """Airflow's ``ObjectStoragePath`` of a URI; imported here because it loads fsspec.

    :param uri: such as ``s3://bucket/key``, ``gs://bucket/key`` or ``file:///data/day.csv``.
    :param conn_id: the Airflow connection whose credentials open it; None for the scheme's default.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    return ObjectStoragePath(uri, conn_id=conn_id)


def response_timeout_argument(operator: type[Any], timeout: Any) -> dict[str, Any]:
    """How long a human-in-the-loop operator waits for an answer, under the name that its version knows.

    :param operator: ``HITLOperator`` of the standard provider, whose early releases for Airflow 3.1 have no
        ``response_timeout`` and take the task's own ``execution_timeout``.
    :param timeout: a timedelta; None waits for ever.
    """
    known = "response_timeout" in inspect.signature(operator.__init__).parameters  # type: ignore[misc]
    return {"response_timeout" if known else "execution_timeout": timeout}
