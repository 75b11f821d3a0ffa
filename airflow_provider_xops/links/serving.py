"""The link from a deployment's task to what serves now.

For the task page. It leads to this package's own page in Airflow (see
:mod:`airflow_provider_xops.plugin.api`), which asks the servers: who is on call has neither their key nor,
often, a way to their addresses from a browser.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow_provider_xops.links.evidence import base_path
from airflow_provider_xops.version_compat import BaseOperatorLink

__all__ = ["ServingLink"]


class ServingLink(BaseOperatorLink):
    """To what every server of the target says that it serves now (JSON)."""

    name = "What serves now"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page; nothing where the task did not come to know a model."""
        served = getattr(operator, "served", None)
        if served is None:
            return ""
        path = "/".join(quote(part, safe="") for part in (operator.serving_conn_id, *served))
        return f"{base_path()}/xops/serving/{path}"
