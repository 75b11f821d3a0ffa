"""The Airflow plugin. Loaded by every Airflow process, so it imports next to nothing until the web server
asks."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

__all__ = ["URL_PREFIX", "XOpsPlugin"]

URL_PREFIX = "/xops"


class XOpsPlugin(AirflowPlugin):
    """Serves the lake's reports and evidence, and what serves models, under ``/xops`` (see :mod:`.api`)."""

    name = "xops"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Made when the web server asks: FastAPI costs every task process seconds otherwise."""
        if "_apps" not in self.__dict__:
            from airflow_provider_xops.plugin.api import create_app

            self.__dict__["_apps"] = [{"app": create_app(), "url_prefix": URL_PREFIX, "name": "XOps"}]
        apps: list[dict[str, Any]] = self.__dict__["_apps"]
        return apps
