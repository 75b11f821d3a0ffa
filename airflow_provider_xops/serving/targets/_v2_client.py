"""One server that speaks the Open Inference Protocol (V2) and its repository API, asked in named questions.

For the V2 target. Bodies of errors are never shown: model servers answer with tracebacks that quote the rows.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from airflow_provider_xops.errors import ModelError, RegistryError, UnavailableError
from airflow_provider_xops.serving.targets._http import Http, Response

__all__ = ["Counted", "Loaded", "V2Server", "served_name"]

log = logging.getLogger(__name__)

_COUNTER = re.compile(
    r'^model_infer_request_(success|failure)_total\{model="((?:[^"\\]|\\.)*)",version="None"\} (\S+)$'
)
CHAMPION = "champion"
# What a server, or a gateway before it, says that is too busy or not there: it has not judged the model.
_LATER = (408, 429, 502, 503, 504)


@dataclass(frozen=True)
class Loaded:
    """What a server says of a model that it has loaded.

    :param version: the number in its settings; None: they name none.
    :param platform: what its settings say of the files.
    """

    version: int | None
    platform: str


@dataclass(frozen=True)
class Counted:
    """How many requests of callers a server has answered since it started, and how many of them it could
    not."""

    requests: int
    errors: int


class V2Server:
    """One replica.

    :param headers: sent with each request. :param timeout_s: seconds a request may take.
    :param load_timeout_s: seconds that loading or unloading a model may take.
    :param metrics_url: where it shows its Prometheus figures; None: nowhere.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        load_timeout_s: float = 300.0,
        metrics_url: str | None = None,
    ) -> None:
        self._http = Http(url, headers=headers, timeout_s=timeout_s)
        self._slow = Http(url, headers=headers, timeout_s=load_timeout_s)
        self._metrics = Http(metrics_url, timeout_s=timeout_s) if metrics_url else None
        self.url = self._http.url

    def loaded(self, name: str, version: int | None = None) -> Loaded | None:
        """What it has loaded under a name, and is ready to answer with; None: nothing.

        :raises UnavailableError: ``unavailable.server``. :raises RegistryError: ``registry.model_server``: it
            refused, or is no V2 server.
        """
        path = _model(name, version)
        if self._asked(self._http.get(f"{path}/ready"), f"whether {name} is ready") is None:
            return None
        answer = self._asked(self._http.get(path), f"what {name} is")
        if answer is None:
            return None
        said = answer.json()
        if not isinstance(said, dict):
            raise self._refused(answer, f"what {name} is")
        versions = [str(each) for each in said.get("versions") or ()]
        number = int(versions[0]) if len(versions) == 1 and versions[0].isdigit() else None
        return Loaded(version=number, platform=str(said.get("platform") or ""))

    def has(self, settings: Mapping[str, Any]) -> bool:
        """Whether it answers with the very files that settings in its repository name.

        :raises UnavailableError: as :meth:`loaded`.
        """
        number = settings["parameters"].get("version")
        found = self.loaded(settings["name"], int(number) if number else None)
        return found == Loaded(version=int(settings["versions"][0]), platform=settings["platform"])

    def have(self, settings: Mapping[str, Any]) -> None:
        """Have it load what settings in its repository name, unless it has.

        :raises ModelError: as :meth:`load`. :raises UnavailableError: as :meth:`loaded`.
        """
        if not self.has(settings):
            self.load(settings["name"])
            log.info("The model server at %s has loaded %s.", self.url, settings["name"])

    def load(self, name: str) -> None:
        """Have it load what its repository's settings now say of a name; what it had under it serves until
        then.

        :raises ModelError: ``model.not_loaded``: it could not. :raises UnavailableError: no answer in time.
        """
        answer = self._slow.post(f"/v2/repository/models/{quote(name, safe='')}/load")
        if answer.status == 200:
            return
        if answer.status in _LATER:
            raise UnavailableError(
                f"the model server at {self.url} did not load {name} yet",
                code="unavailable.server",
                why=f"it answered with {answer.status}",
                todo="look at the server's log",
                context={"server": self.url, "status": answer.status},
            )
        self._see_permission(answer, f"loading {name}")
        why = f"it answered with {answer.status}; its own log says what went wrong"
        todo = "see that the packages in the model's requirements.txt are installed where the server runs"
        if answer.status == 404:
            why = "it finds no settings of that name in its model repository"
            todo = "see that the server reads the folder that the connection names as model repository"
        raise ModelError(
            f"the model server at {self.url} did not load {name}", code="model.not_loaded", why=why, todo=todo
        )

    def unload(self, name: str) -> None:
        """Have it forget a name; one that it does not know is no error.

        :raises UnavailableError: no answer in time. :raises RegistryError: ``registry.model_server``.
        """
        self._asked(
            self._slow.post(f"/v2/repository/models/{quote(name, safe='')}/unload"), f"unloading {name}"
        )

    def names(self) -> list[str]:
        """The names in its repository, one a file of settings.

        :raises UnavailableError: no answer in time. :raises RegistryError: ``registry.model_server``: it has
            no repository API.
        """
        doing = "what is in its model repository"
        answer = self._http.post("/v2/repository/index")
        found = answer.json() if self._asked(answer, doing) is not None else None
        if not isinstance(found, list):
            raise self._refused(answer, doing)
        return [str(each.get("name")) for each in found if isinstance(each, dict)]

    def infer(self, name: str, version: int | None, request: Mapping[str, Any]) -> Response:
        """Ask for predictions.

        :raises UnavailableError: no answer in time.
        """
        return self._http.post(f"{_model(name, version)}/infer", request)

    def counted(self, name: str) -> Counted | None:
        """Figures of the requests to a name without a version; None where it shows none.

        :raises UnavailableError: no answer in time.
        """
        if self._metrics is None:
            return None
        answer = self._metrics.get("")
        if answer.status != 200:
            return None
        found = {"success": 0, "failure": 0}
        for line in answer.body.decode(errors="replace").splitlines():
            if (match := _COUNTER.match(line)) and match[2].replace('\\"', '"').replace("\\\\", "\\") == name:
                found[match[1]] = int(float(match[3]))
        return Counted(requests=found["success"] + found["failure"], errors=found["failure"])

    def _asked(self, answer: Response, doing: str) -> Response | None:
        """The answer; None where it says that there is no such thing, or not yet."""
        if answer.status == 200:
            return answer
        if answer.status in (400, 404):
            return None
        if answer.status >= 500 or answer.status in (408, 429):
            raise UnavailableError(
                f"the model server at {self.url} did not say {doing}",
                code="unavailable.server",
                why=f"it answered with {answer.status}",
                todo="look at the server's log",
                context={"server": self.url, "status": answer.status},
            )
        self._see_permission(answer, doing)
        raise self._refused(answer, doing)

    def _see_permission(self, answer: Response, doing: str) -> None:
        if answer.status in (401, 403):
            raise RegistryError(
                f"the model server at {self.url} refused: {doing}",
                code="registry.model_server",
                why=f"it does not accept the key that was sent ({answer.status})",
                todo="correct the key in the xops_serving connection",
            )

    def _refused(self, answer: Response, doing: str) -> RegistryError:
        return RegistryError(
            f"the model server at {self.url} did not say {doing}",
            code="registry.model_server",
            why=f"what it answered ({answer.status}) is not the V2 protocol with its repository API",
            todo="correct the address; a server without the repository API cannot be deployed to",
        )


def served_name(name: str, alias: str) -> str:
    """What callers call a model. A registry's names have no colon, so no model can be called like an alias.

    >>> served_name("late", "champion"), served_name("late", "champion-eu")
    ('late', 'late:champion-eu')
    """
    return name if alias == CHAMPION else f"{name}:{alias}"


def _model(name: str, version: int | None) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return path if version is None else f"{path}/versions/{version}"
