"""Serves one model folder with MLflow's own scoring server, on a loopback port of the system's choice.

For :mod:`airflow_provider_xops.serving.smoke`, which starts a copy of this file as a program: ``python
server.py FOLDER DIGEST REPORTS``. It stands alone (the standard library, and MLflow once the files are
proved), because the model's recorded environment has MLflow and the model's libraries, not this package.

Before anything is imported or unpickled the files' digest is computed again, here, from the very bytes that
are loaded next. Into the folder REPORTS it writes ``refused.json`` (other files), ``failed.json`` (the model
does not load) or ``ready.json`` (port, versions, seconds), each whole or not at all.

Beside MLflow's ``/invocations`` the same application is there a second time under ``/probabilities`` for a
model with ``predict_proba``: MLflow's answers hold classes only, and a class hides most of what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from typing import Any

# What MLflow writes beside a downloaded model; not part of what was registered.
NOT_OF_THE_MODEL = {"registered_model_meta"}
CHUNK = 1 << 20
SIGKILL = 9
PR_SET_PDEATHSIG = 1


def main(folder: str, digest: str, reports: str) -> int:
    """Prove, load, serve until told to end; gives the exit code."""
    _die_with_parent()
    found = folder_digest(folder)
    if found != digest:
        _report(reports, "refused", {"found": found})
        return 3
    try:
        import mlflow.pyfunc
        from mlflow.pyfunc import scoring_server
    except Exception as error:
        _report(reports, "failed", {"step": "import", **_told(error)})
        return 4
    begin = time.perf_counter()
    try:
        model = mlflow.pyfunc.load_model(folder)
    except Exception as error:
        _report(reports, "failed", {"step": "load", **_told(error)})
        return 4
    load_seconds = time.perf_counter() - begin
    try:
        raw = _raw(model)
        app = scoring_server.init(model)
        if hasattr(raw, "predict_proba"):
            app.mount("/probabilities", scoring_server.init(_Probabilities(model, raw)))
        import uvicorn
    except Exception as error:
        _report(reports, "failed", {"step": "server", **_told(error)})
        return 4
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    ready = {
        "port": listening.getsockname()[1],
        "load_seconds": load_seconds,
        "mlflow": mlflow.__version__,
        "uvicorn": uvicorn.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "classes": _classes(raw),
    }
    _report(reports, "ready", ready)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def folder_digest(folder: str) -> str:
    """SHA-256 over the sorted (relative path, SHA-256 of the bytes) of every file: the registry's digest."""
    entries = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            if relative not in NOT_OF_THE_MODEL and os.path.isfile(path):
                entries.append([relative, _sha256(path)])
    return hashlib.sha256(json.dumps(sorted(entries), separators=(",", ":")).encode()).hexdigest()


class _Probabilities:
    """Answers with the probabilities of the classes where the model answers with the class."""

    def __init__(self, model: Any, raw: Any) -> None:
        self.metadata = model.metadata
        self.raw = raw

    def predict(self, data: Any, params: Any = None) -> Any:
        return self.raw.predict_proba(data)


def _raw(model: Any) -> Any:
    """The estimator inside; None for a model whose flavor hides it."""
    try:
        return model.get_raw_model()
    except Exception:
        return None


def _classes(raw: Any) -> Any:
    classes = getattr(raw, "classes_", None)
    if classes is None or not hasattr(raw, "predict_proba"):
        return None
    return [repr(value.item() if hasattr(value, "item") else value) for value in classes]


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while True:
            chunk = stream.read(CHUNK)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)


def _told(error: BaseException) -> dict[str, str]:
    return {"error": type(error).__name__, "message": " ".join(str(error).split())[:300]}


def _report(reports: str, name: str, data: dict[str, Any]) -> None:
    path = os.path.join(reports, name + ".json")
    with open(path + ".part", "w") as file:
        json.dump(data, file)
    os.replace(path + ".part", path)


def _die_with_parent() -> None:
    """End with the warden, should that be killed alone (Linux only)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
