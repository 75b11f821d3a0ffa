"""What goes wrong between us and MLflow, as typed errors without secrets and without rows of data."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from airflow_provider_xops.errors import NotFoundError, RegistryError, UnavailableError, XOpsError
from airflow_provider_xops.settings import MlflowSettings

__all__ = ["scrub", "translated"]

MESSAGE_LIMIT = 400
_HIDDEN = "***"
_USERINFO = re.compile(r"//[^/@\s]+@")
_AUTHORIZATION = re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]{8,}")
# MLflow's schema enforcement prints the frame it was given.
_SCHEMA_DATA = re.compile(r"(?s)(enforce schema of data\s+)'.*?'(\s+with schema|\s*$)")
_SERVER_CODES = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "ABORTED"}
_START = "start MLflow, or correct the address in the xops_mlflow connection (or XOPS_MLFLOW_TRACKING_URI)"


@contextlib.contextmanager
def translated(doing: str, settings: MlflowSettings) -> Iterator[None]:
    """Turn every error of MLflow or of HTTP inside the block into one of ours; others pass unchanged."""
    try:
        yield
    except XOpsError:
        raise
    except Exception as error:
        # The original is left out of the chain on purpose: its text may hold what scrub() takes out.
        ours = translate(error, doing, settings)
        if ours is None:
            raise
        raise ours from None


def translate(error: Exception, doing: str, settings: MlflowSettings) -> XOpsError | None:
    """Our error for one of MLflow's or of HTTP's; None for anything else."""
    code, status = _mlflow_code(error), _http_status(error)
    if code is None and status is None and not _is_http(error):
        return None
    uri, why = settings.tracking_uri, scrub(str(error), settings)
    what = f"MLflow at {uri} did not do it: {doing}"
    if code == "UNAUTHENTICATED" or status == 401:
        return RegistryError(
            what,
            code="registry.unauthenticated",
            why="the server does not accept these credentials (401)",
            todo="correct the user name and password or the token of the xops_mlflow connection",
        )
    if code == "PERMISSION_DENIED" or status == 403:
        return _forbidden(what, why)
    if code == "ENDPOINT_NOT_FOUND" or "not in a valid JSON format" in why:
        return RegistryError(
            what,
            code="registry.not_mlflow",
            why=f"what answers there is not MLflow's API: {why}",
            todo="correct the tracking URI (a path prefix, a login page or a proxy may be in between)",
        )
    if code == "RESOURCE_DOES_NOT_EXIST" or status == 404:
        return NotFoundError(what, code="not_found.registry", why=why, todo="check the name, version or id")
    if _is_connection(error) or code in _SERVER_CODES or (status or 0) >= 500 or status in (408, 429):
        return _unavailable(what, why, settings)
    return RegistryError(
        what,
        code="registry.refused",
        why=f"{code or status}: {why}",
        todo="correct what the reason names; running the same again gives the same answer",
        context={"mlflow_code": code},
    )


def scrub(text: str, settings: MlflowSettings | None = None, *, limit: int = MESSAGE_LIMIT) -> str:
    """``text`` without credentials and without rows of data, at most ``limit`` characters.

    >>> scrub("HTTPConnectionPool: http://bob:secret@host/api refused")
    'HTTPConnectionPool: http://***@host/api refused'
    """
    for secret in _secrets(settings):
        text = text.replace(secret, _HIDDEN)
    text = _USERINFO.sub(f"//{_HIDDEN}@", text)
    text = _AUTHORIZATION.sub(rf"\1 {_HIDDEN}", text)
    text = _SCHEMA_DATA.sub(r"\1(rows left out)\2", text)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}..."


def _secrets(settings: MlflowSettings | None) -> list[str]:
    if settings is None:
        return []
    found = [secret for secret in (settings.password, settings.token) if secret]
    if settings.password:
        pair = f"{settings.username or ''}:{settings.password}".encode()
        found.append(base64.b64encode(pair).decode())
    return sorted(found, key=len, reverse=True)


def _mlflow_code(error: Exception) -> str | None:
    from mlflow.exceptions import MlflowException

    return str(error.error_code) if isinstance(error, MlflowException) else None


def _http_status(error: Exception) -> int | None:
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_http(error: BaseException) -> bool:
    import requests

    return isinstance(error, requests.RequestException)


def _is_connection(error: BaseException) -> bool:
    """Whether the request died under way: refused, unreachable, timed out, or out of retries on 5xx."""
    import requests

    seen: BaseException | None = error
    kinds = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.RetryError,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
    )
    for _ in range(10):
        if seen is None:
            return False
        if isinstance(seen, kinds):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _forbidden(what: str, why: str) -> RegistryError:
    if "host header" in why.lower():
        return RegistryError(
            what,
            code="registry.forbidden",
            why="the server refuses this Host header (403)",
            todo="start `mlflow server` with --allowed-hosts naming the host of the tracking URI",
        )
    return RegistryError(
        what,
        code="registry.forbidden",
        why=f"this user may not do it, or cannot see it (403): {why}",
        todo="give the user the permission in MLflow, or use another user in the xops_mlflow connection",
    )


def _unavailable(what: str, why: str, settings: MlflowSettings) -> UnavailableError:
    context = {"timeout_s": settings.timeout_s, "max_retries": settings.max_retries}
    lowered = why.lower()
    if "timed out" in lowered or "timeout" in lowered:
        return UnavailableError(
            what,
            code="unavailable.mlflow_slow",
            context=context,
            why=f"no answer within {settings.timeout_s} s, in {settings.max_retries + 1} attempts",
            todo="look at the server's load and its database; if it is only slow, raise the timeout",
        )
    if "error responses" in lowered or re.search(r"\b5\d\d\b", why) or "unavailable" in lowered:
        return UnavailableError(
            what,
            code="unavailable.mlflow_error",
            context=context,
            why=f"it answers with server errors: {why}",
            todo="look at the server's log: its database or its artifact store may be down",
        )
    return UnavailableError(what, code="unavailable.mlflow", context=context, why=why, todo=_START)
