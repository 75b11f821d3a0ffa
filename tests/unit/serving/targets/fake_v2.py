"""A model server that does what MLServer was seen to do, inside the process: for tests that stop anywhere.

What it does was measured with MLServer 1.7.1: it loads one set of settings a name and version, swaps a name
without a number in place, keeps what it has if loading fails, and loads everything there is when it starts.
"""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.serving.targets._http import Response

Loaded = dict[str, Any]


class Killed(BaseException):
    """The process that deploys was killed."""


class FakeServer:
    """One server over a model repository.

    :param refuses: versions that it cannot load. :param down: it does not answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: dict[str, Loaded] = {}
        self.refuses: set[str] = set()
        self.down = False
        self.requests = 0
        self.failures = 0

    def restart(self) -> None:
        """Forget everything, and load what the repository says.

        :raises RuntimeError: something cannot be loaded: then the whole server does not start.
        """
        self.loaded = {}
        for settings in self._found():
            if not self._load(settings):
                raise RuntimeError("a model failed to load during startup")

    def answer(self, method: str, path: str, content: Any) -> tuple[int, Any]:
        """What it answers."""
        if self.down:
            raise UnavailableError("the server did not answer", code="unavailable.server")
        words = [unquote(word) for word in path.strip("/").split("/")]
        if words[1:2] == ["repository"]:
            return self._repository(words)
        name = words[2]
        settings = self.loaded.get(name)
        if settings is None:
            return 404, {"error": f"Model {name} not found"}
        number = settings["parameters"].get("version")
        if words[3:4] == ["versions"] and words[4] != number:
            return 404, {"error": "no such version"}
        if words[-1] == "ready":
            return 200, None
        if words[-1] == "infer":
            self.requests += 1
            rows = content["inputs"][0]["shape"][0]
            output = {"shape": [rows], "datatype": "INT64", "data": [int(settings["versions"][0])] * rows}
            return 200, {"outputs": [output], **({"model_version": number} if number else {})}
        return 200, {"versions": settings["versions"], "platform": settings["platform"]}

    def metrics(self, name: str) -> bytes:
        """Its Prometheus page."""
        label = f'{{model="{name}",version="None"}}'
        return (
            f"# TYPE model_infer_request_success_total counter\n"
            f"model_infer_request_success_total{label} {self.requests - self.failures}.0\n"
            f"model_infer_request_failure_total{label} {self.failures}.0\n"
            f'model_infer_request_success_total{{model="{name}:v2",version="2"}} 99.0\n'
        ).encode()

    def _repository(self, words: list[str]) -> tuple[int, Any]:
        if words[2] == "index":
            return 200, [{"name": each["name"], "state": "READY"} for each in self._found()]
        name, doing = words[3], words[4]
        if doing == "unload":
            return (200, None) if self.loaded.pop(name, None) else (404, {"error": "not found"})
        found = [each for each in self._found() if each["name"] == name]
        if not found:
            return 404, {"error": f"Model {name} not found"}
        return (200, None) if self._load(found[0]) else (500, {"error": "Traceback: secret row 4711"})

    def _load(self, settings: Loaded) -> bool:
        files = Path(settings["source"]).parent / settings["parameters"]["uri"]
        if settings["versions"][0] in self.refuses or not (files / "MLmodel").exists():
            return False
        self.loaded[settings["name"]] = settings
        return True

    def _found(self) -> list[Loaded]:
        files = glob.glob(str(self.folder / "**" / "model-settings.json"), recursive=True)
        return [{**json.loads(Path(file).read_text()), "source": file} for file in sorted(files)]


class FakeHttp:
    """Stands for :class:`~airflow_provider_xops.serving.targets._http.Http`.

    :param servers: by address. :param kill_at: the number of the request at which the process is killed;
        ``after`` says whether the server has done it by then.
    """

    servers: dict[str, FakeServer]
    name = "late"
    made = 0
    kill_at: int | None = None
    after = False

    def __init__(self, url: str, *, headers: Any = None, timeout_s: float = 1.0) -> None:
        self.url = url

    def get(self, path: str) -> Response:
        return self.request("GET", path)

    def post(self, path: str, content: Any = None) -> Response:
        return self.request("POST", path, content or {})

    def request(self, method: str, path: str, content: Any = None) -> Response:
        cls = type(self)
        cls.made += 1
        if cls.made == cls.kill_at and not cls.after:
            raise Killed
        if self.url.endswith("/metrics"):
            server = self.servers[self.url.removesuffix("/metrics")]
            return Response(200, {}, server.metrics(self.name), 0.0)
        status, body = self.servers[self.url].answer(method, path, content)
        if cls.made == cls.kill_at:
            raise Killed
        return Response(status, {}, b"" if body is None else json.dumps(body).encode(), 0.001)
