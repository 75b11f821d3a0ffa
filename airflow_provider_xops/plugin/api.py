"""Read-only pages over a lake (its reports, model cards and evidence records) and over what serves models.

For the links on Airflow's task pages: a browser cannot open ``file://`` or ``s3://``, nor ask servers whose
key it does not have, and has no right to. Only what lies under the lake's reports and evidence is served, and
which versions answer, only to those whom Airflow's auth manager lets see plugin pages, and with a policy that
runs no script of a report.

What it does not do: it reads no table and opens no Delta log (their runtime does not survive the server's
forks), so a record that maintenance has folded into a table is answered by naming the command that reads it.

Airflow's and FastAPI's names are imported at module level on purpose: a dependency that FastAPI cannot
resolve turns into a query parameter, and the check is gone.
"""

import json
import logging
import posixpath

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Response

from airflow_provider_xops.errors import UnavailableError, XOpsError
from airflow_provider_xops.hooks.lake import LakeHook
from airflow_provider_xops.hooks.serving import ServingHook
from airflow_provider_xops.records import RECORD_TYPES

__all__ = ["create_app"]

log = logging.getLogger(__name__)

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",  # a browser shows it as it is
    ".yaml": "text/plain; charset=utf-8",
}
# A report is data that somebody else wrote: it may style itself, and nothing else.
HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-store",
}


def create_app() -> FastAPI:
    """The application Airflow mounts under ``/xops``."""
    app = FastAPI(
        title="XOps",
        description="Reports and evidence of the lake, and what serves models; read only.",
        dependencies=[Depends(requires_access_view(AccessView.PLUGINS))],
        openapi_url=None,
    )

    @app.get("/lakes/{conn_id}/reports/{path:path}")
    def report(conn_id: str, path: str) -> Response:
        """A report: its page, the result behind it as JSON, a suggested suite as YAML, a card as Markdown."""
        suffix = posixpath.splitext(path)[1]
        if suffix not in MEDIA_TYPES or posixpath.normpath(path) != path or path.startswith(("/", "..")):
            raise HTTPException(404, "there is no such report")
        return _answer(_read(conn_id, f"_xops/reports/{path}"), MEDIA_TYPES[suffix], f"report {path}")

    @app.get("/lakes/{conn_id}/evidence/{kind}/{record_id}")
    def evidence(conn_id: str, kind: str, record_id: str) -> Response:
        """One record as JSON."""
        if kind not in RECORD_TYPES or not record_id.isalnum():
            raise HTTPException(404, "there is no such record")
        data = _read(conn_id, f"_xops/evidence/{kind}/{record_id}.json")
        pretty = data and json.dumps(json.loads(data), indent=2).encode()
        return _answer(
            pretty,
            MEDIA_TYPES[".json"],
            f"record {record_id} (folded by maintenance? xops show {kind} {record_id})",
        )

    @app.get("/serving/{conn_id}/{model}/{alias}")
    def serving(conn_id: str, model: str, alias: str) -> Response:
        """What every server of a target says that it serves now, as JSON."""
        from airflow_provider_xops.serving.targets.look import what_serves

        try:
            found = what_serves(ServingHook(conn_id).get_settings(), model=model, alias=alias)
        except XOpsError as error:
            log.warning("Cannot ask the servers of connection %s: %s", conn_id, error)
            raise HTTPException(404, f"the connection {conn_id!r} gives no servers to ask") from error
        return _answer(json.dumps(found, indent=2).encode(), MEDIA_TYPES[".json"], "servers")

    return app


def _read(conn_id: str, path: str) -> bytes | None:
    from airflow_provider_xops.lake.storage import open_storage

    try:
        return open_storage(LakeHook(conn_id).get_settings()).get(path)
    except UnavailableError as error:
        raise HTTPException(503, str(error)) from error
    except XOpsError as error:
        # The reason names connections and storage: it is for the server's log, not for every reader.
        log.warning("Cannot read %s through connection %s: %s", path, conn_id, error)
        raise HTTPException(404, f"the connection {conn_id!r} gives no lake to read") from error


def _answer(data: bytes | None, media_type: str, what: str) -> Response:
    if data is None:
        raise HTTPException(404, f"the lake has no {what}")
    return Response(data, media_type=media_type, headers=HEADERS)
