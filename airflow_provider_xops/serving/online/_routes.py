"""Every path that does not ask for predictions: health, metadata, management, figures.

Private to :mod:`airflow_provider_xops.serving.online.app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from airflow_provider_xops import __version__
from airflow_provider_xops.serving.online import metrics, protocol_v2
from airflow_provider_xops.serving.online.answers import Answer, Refusal, encode, refuse
from airflow_provider_xops.serving.online.limits import Bodies, Workers
from airflow_provider_xops.serving.online.site import Served, Site

__all__ = ["make_routes"]

LONGEST_WAIT = 120.0
# How many may wait for the end of a look at the lake at a time; each holds a thread.
WAITING = 4


def make_routes(site: Site, workers: Workers, bodies: Bodies) -> FastAPI:
    """The FastAPI application of a site."""
    # The pages of the documentation would load programs from another host: only the schema is served.
    app = FastAPI(
        title="xops serve", version=__version__, docs_url=None, redoc_url=None,
        description="Predictions by MLflow's protocol and the Open Inference Protocol V2.",
    )  # fmt: skip
    waiting = ThreadPoolExecutor(WAITING, thread_name_prefix="xops-refresh")
    # Of its own: figures and state must be told while everybody waits for a lake that does not answer.
    telling = ThreadPoolExecutor(2, thread_name_prefix="xops-status")
    _add_health(app, site)
    _add_metadata(app, site)
    _add_management(app, site, waiting, telling)

    @app.get("/metrics", include_in_schema=False)
    async def figures() -> Response:
        body = await asyncio.get_running_loop().run_in_executor(telling, site.figures.text)
        return Response(body + _of_now(workers, bodies), media_type=metrics.CONTENT_TYPE)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = {404: "there is nothing here", 405: "this cannot be done here"}.get(
            error.status_code, "refused"
        )
        allowed = (error.headers or {}).get("Allow")
        if allowed == "GET":
            allowed = "GET, HEAD"
        headers = {"Allow": allowed} if allowed else None
        refusal = Refusal(error.status_code, "http.refused", what, headers=headers)
        return _response(refuse(refusal, "v2" if request.url.path.startswith("/v2") else "mlflow"))

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return _response(refuse(error, "v2" if request.url.path.startswith("/v2") else "mlflow"))

    _describe_scoring(app)
    return app


def _add_health(app: FastAPI, site: Site) -> None:
    async def ready() -> Response:
        waiting = [each.name for each in site.serving if not each.ready]
        content = {"ready": site.ready, "draining": site.draining, "waiting_for": waiting}
        return _json(content, 200 if site.ready else 503)

    for path in ("/ping", "/health", "/v2/health/ready"):
        app.get(path, summary="200 when every model is loaded, else 503")(ready)

    @app.get("/v2/health/live", summary="200 when the process answers")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/version", summary="This package's version")
    async def version() -> Response:
        return Response(__version__, media_type="text/plain")


def _add_metadata(app: FastAPI, site: Site) -> None:
    @app.get("/v2", summary="What this server is")
    async def server() -> Response:
        return _json({"name": "xops", "version": __version__, "extensions": ["model_repository"]})

    @app.get("/v2/models/{model}", summary="A model's tensors")
    @app.get("/v2/models/{model}/versions/{version}", summary="A version's tensors")
    async def model(model: str, version: str = "") -> Response:
        served = _served(site, model)
        with _lease(served, version) as lease:
            loaded = lease.loaded
            versions = [loaded.version] if version else served.fleet.versions
            content = protocol_v2.metadata(
                served.name, versions, served.scorer.columns(loaded), loaded.classes
            )
        return _json(content)

    @app.get("/v2/models/{model}/ready", summary="200 when the model answers, else 503")
    @app.get(
        "/v2/models/{model}/versions/{version}/ready", summary="200 when the version is loaded, else 503"
    )
    async def model_ready(model: str, version: str = "") -> Response:
        served = _served(site, model)
        is_there = served.ready if not version else version in map(str, served.fleet.versions)
        content = {"name": served.name, "ready": is_there}
        return _json({**content, "version": version} if version else content, 200 if is_there else 503)


def _add_management(
    app: FastAPI, site: Site, waiting: ThreadPoolExecutor, telling: ThreadPoolExecutor
) -> None:
    async def told(function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(telling, function)

    async def look(served: Served, seconds: float) -> None:
        if served.follower is not None:
            follower = served.follower
            if seconds > 0:
                await asyncio.get_running_loop().run_in_executor(waiting, follower.refresh, seconds)
            else:
                follower.refresh(None)

    @app.get("/xops/status", summary="The plan, what is loaded, sessions, the log, the last error")
    async def status() -> Response:
        return _json(await told(site.status))

    @app.post("/xops/refresh", summary="Look at the lake now; ?wait=SECONDS waits for the end of the look")
    async def refresh(request: Request) -> Response:
        seconds = _seconds(request.query_params.get("wait", "0"))
        chosen = request.query_params.get("model")
        several = site.serving if chosen is None else [_served(site, chosen)]
        await asyncio.gather(*(look(each, seconds) for each in several))
        return _json(await told(site.status))

    @app.post("/v2/repository/index", summary="What is loaded")
    async def index() -> Response:
        entries = []
        for each in site.serving:
            state = await told(each.fleet.status)
            for loaded in state["loaded"]:
                entries.append(_entry(each, loaded["version"], "READY", str(loaded["role"] or "")))
            for failed in state["failed"]:
                entries.append(_entry(each, failed["version"], "UNAVAILABLE", failed["code"]))
        return _json(entries)

    @app.post("/v2/repository/models/{model}/load", summary="Look at the lake now, and load what it says")
    async def load(model: str) -> Response:
        served = _served(site, model)
        await look(served, 60.0)
        if not served.fleet.whole:
            raise Refusal(409, "conflict.not_loaded", "what the lake says is not loaded; see /xops/status")
        return _json({})

    @app.post("/v2/repository/models/{model}/unload", summary="Look at the lake now; nothing else unloads")
    async def unload(model: str) -> Response:
        served = _served(site, model)
        await look(served, 60.0)
        raise Refusal(
            409,
            "conflict.desired_state",
            "what is served is decided in the lake (ledger and traffic splits), not here",
        )


def _describe_scoring(app: FastAPI) -> None:
    """Put the scoring paths, which FastAPI does not see, into its schema."""
    made = app.openapi
    rows = {"type": "object", "description": "see docs/serving.md: exactly one of the forms"}
    answers = {
        "200": {"description": "predictions; headers X-Model-Version, X-Variant, X-Prediction-Id"},
        "400": {"description": "the rows do not fit the model; names columns, never values"},
        "401": {"description": "no known key"},
        "413": {"description": "too many bytes or rows"},
        "429": {"description": "the queue is full, or too many bytes are in memory"},
        "503": {"description": "nothing is loaded, or no thread was free in time"},
        "504": {"description": "the model did not answer in time"},
    }

    def with_scoring() -> dict[str, Any]:
        schema = made()
        for path, summary in (
            ("/invocations", "Predictions by MLflow's protocol"),
            ("/models/{model}/invocations", "Predictions of one of several models, by MLflow's protocol"),
            ("/v2/models/{model}/infer", "Predictions by the Open Inference Protocol V2"),
            ("/v2/models/{model}/versions/{version}/infer", "Predictions of a loaded version by its number"),
        ):
            names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
            schema["paths"][path] = {
                "post": {
                    "summary": summary,
                    "parameters": [
                        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                        for name in names
                    ],
                    "requestBody": {"required": True, "content": {"application/json": {"schema": rows}}},
                    "responses": answers,
                }
            }
        return schema

    app.openapi = with_scoring  # type: ignore[method-assign]


def _served(site: Site, name: str) -> Served:
    found = site.by_name.get(name)
    if found is None:
        raise Refusal(404, "not_found.model", "no model of this name is served here")
    return found


def _lease(served: Served, version: str) -> Any:
    from airflow_provider_xops.errors import NotFoundError, UnavailableError

    try:
        if not version:
            return served.fleet.lease()
        if not (version.isascii() and version.isdigit() and len(version) < 10):
            raise Refusal(404, "not_found.loaded_version", "this version is not loaded")
        return served.fleet.lease_version(int(version))
    except UnavailableError:
        raise Refusal(503, "unavailable.model", "no version of the model is loaded yet") from None
    except NotFoundError:
        raise Refusal(404, "not_found.loaded_version", "this version is not loaded") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise Refusal(400, "input.wait", f"wait is a number of seconds from 0 to {LONGEST_WAIT:g}")
    return seconds


def _entry(served: Served, version: int, state: str, reason: str) -> dict[str, Any]:
    return {"name": served.name, "version": str(version), "state": state, "reason": reason}


def _of_now(workers: Workers, bodies: Bodies) -> bytes:
    lines = []
    for name, text, value in (
        ("xops_inflight_requests", "Worked on or waiting", workers.inflight),
        ("xops_stuck_requests", "Answered with 504, still held by the model", workers.stuck),
        ("xops_body_bytes", "Bodies of requests in memory", bodies.bytes),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}.0"]
    return ("\n".join(lines) + "\n").encode()


def _json(content: Any, status: int = 200) -> Response:
    return Response(encode(content), status, media_type="application/json")


def _response(answer: Answer) -> Response:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers=headers)
