"""One replica of ``xops serve``, asked over HTTP: what it serves, its figures, predictions.

For :mod:`airflow_provider_xops.serving.targets.own`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_xops.errors import ArgumentError, NotFoundError, UnavailableError
from airflow_provider_xops.serving.targets._http import Http, Response
from airflow_provider_xops.serving.targets.base import Answer, VersionFigures

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Counted",
    "Replica",
    "Status",
    "counted_from_json",
    "counted_to_json",
    "difference",
    "quantile",
]

# The answers' tensors and the statuses' words are the server's own.
PREDICTIONS, PROBABILITIES = "predictions", "probabilities"


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a replica says about one alias.

    :param name: what clients call it there. :param shares: version to its share of the requests.
    :param shadows: version to the share it is asked beside.
    :param loaded: the versions in its memory, each with when it was made (None: the server does not say).
    :param failed: versions it could not load, with the code of the error.
    :param counted: its counters by version since it was started.
    """

    name: str
    shares: Mapping[int, float]
    shadows: Mapping[int, float]
    loaded: frozenset[tuple[int, int | None]]
    failed: Mapping[int, str]
    counted: Mapping[int, Counted]


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One version's counters on one replica.

    :param within: how many answers took at most so many seconds, cumulative, by the bound.
    """

    requests: int
    errors: int
    within: Mapping[float, int] = field(default_factory=dict)


class Replica:
    """One server by its address.

    :param api_key: one that may manage it; empty: it asks for none.
    """

    def __init__(self, url: str, *, api_key: str = "", timeout_s: float = 10.0) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = Http(url, headers=headers, timeout_s=timeout_s)

    @property
    def url(self) -> str:
        """Its address."""
        return self._http.url

    def status(self, model: str, alias: str) -> Status:
        """What it says about an alias.

        :raises UnavailableError: it does not answer, or is not such a server.
        :raises NotFoundError: ``not_found.served_alias``: it serves others. :raises ArgumentError:
            ``argument.serving_key``.
        """
        content = self._checked(self._http.get("/xops/status")).json()
        served = content.get("models") if isinstance(content, dict) else None
        if not isinstance(served, dict):
            raise self._foreign()
        for name, part in served.items():
            if isinstance(part, dict) and (part.get("model"), part.get("alias")) == (model, alias):
                try:
                    return _status(str(name), part)
                except (KeyError, TypeError, ValueError):
                    raise self._foreign() from None
        raise NotFoundError(
            f"the server at {self.url} does not serve {model}@{alias}",
            code="not_found.served_alias",
            why=f"it serves {', '.join(map(str, served)) or 'nothing'}",
            todo=f"start it with `xops serve {model}@{alias}`, or name another server",
        )

    def refresh(self) -> None:
        """Have it look at the lake now.

        :raises UnavailableError: it does not answer.
        """
        self._checked(self._http.post("/xops/refresh"))

    def ask(self, model: str, alias: str, frame: pd.DataFrame, *, version: int | None) -> Answer:
        """Predictions of these rows.

        :raises UnavailableError: it does not answer.
        """
        name = quote(self.status(model, alias).name, safe="")
        place = f"/v2/models/{name}" if version is None else f"/v2/models/{name}/versions/{version}"
        answer = self._http.post(f"{place}/infer", {"inputs": [_tensor(frame, str(each)) for each in frame]})
        if answer.status in (401, 403):
            self._checked(answer)
        if answer.status in (429, 503, 504):
            raise UnavailableError(
                f"the server at {self.url} is busy", code="unavailable.server",
                why=f"it answered {answer.status}", todo="try again later",
            )  # fmt: skip
        return _answer(self.url, answer)

    def _checked(self, answer: Response) -> Response:
        if answer.status in (401, 403):
            raise ArgumentError(
                f"the server at {self.url} does not take this key",
                code="argument.serving_key",
                why=f"it answered {answer.status}",
                todo="give a key that may manage the server (`xops serve --admin-keys`) in the connection",
            )
        if answer.status >= 500:
            raise UnavailableError(
                f"the server at {self.url} answered {answer.status}",
                code="unavailable.server",
                todo="look at its log",
            )
        if answer.status not in (200, 202):
            raise self._foreign()
        return answer

    def _foreign(self) -> UnavailableError:
        return UnavailableError(
            f"what listens at {self.url} is no `xops serve` of this version",
            code="unavailable.foreign_server",
            todo="check the address",
        )


def difference(
    before: Mapping[str, Mapping[int, Counted]], now: Mapping[str, Mapping[int, Counted]]
) -> dict[int, VersionFigures]:
    """What was counted in between, of all replicas together, by version.

    A counter that has gone back belongs to a replica that was started again: it counts from nothing.
    """
    requests: dict[int, int] = {}
    errors: dict[int, int] = {}
    within: dict[int, dict[float, int]] = {}
    for url, versions in now.items():
        for version, count in versions.items():
            past = before.get(url, {}).get(version)
            if past is None or _has_gone_back(past, count):
                past = Counted(requests=0, errors=0)
            requests[version] = requests.get(version, 0) + count.requests - past.requests
            errors[version] = errors.get(version, 0) + count.errors - past.errors
            buckets = within.setdefault(version, {})
            for bound, number in count.within.items():
                buckets[bound] = buckets.get(bound, 0) + number - past.within.get(bound, 0)
    return {
        version: VersionFigures(
            requests=requests[version], errors=errors[version], p99_ms=_ms(quantile(within[version], 0.99))
        )
        for version in requests
    }


def _has_gone_back(past: Counted, now: Counted) -> bool:
    """Whether any counter is lower than before: also a replica that has since answered more than before its
    restart, which would hide errors of the others."""
    if past.requests > now.requests or past.errors > now.errors:
        return True
    return any(count > now.within.get(bound, 0) for bound, count in past.within.items())


def counted_to_json(counted: Mapping[str, Mapping[int, Counted]]) -> dict[str, Any]:
    """The replicas' counters as plain JSON."""
    return {
        url: {
            str(version): {
                "requests": each.requests,
                "errors": each.errors,
                "within": {str(bound): count for bound, count in each.within.items()},
            }
            for version, each in versions.items()
        }
        for url, versions in counted.items()
    }


def counted_from_json(content: Mapping[str, Any]) -> dict[str, dict[int, Counted]]:
    """The counters that :func:`counted_to_json` has written."""
    return {
        url: {
            int(version): Counted(
                requests=each["requests"],
                errors=each["errors"],
                within={float(bound): count for bound, count in each["within"].items()},
            )
            for version, each in versions.items()
        }
        for url, versions in content.items()
    }


def quantile(within: Mapping[float, int], share: float) -> float | None:
    """The quantile that cumulative counts say, linear between two bounds, as Prometheus has it.

    :param within: seconds to how many took at most that; the last bound may be infinite.
    :returns: seconds; None: nothing was counted. Beyond the last finite bound nothing is known: infinity.

    >>> quantile({0.1: 50, 0.2: 100}, 0.75)
    0.15
    """
    bounds = sorted(within)
    total = within[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    wanted, low, under = share * total, 0.0, 0
    for bound in bounds:
        count = within[bound]
        if count >= wanted:
            if bound == float("inf"):
                return bound
            return round(low + (bound - low) * (wanted - under) / max(1, count - under), 12)
        low, under = bound, count
    return float("inf")


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _status(name: str, part: Mapping[str, Any]) -> Status:
    fleet = part["fleet"]
    variants = fleet["serving"]["variants"]
    return Status(
        name=name,
        shares={
            int(each["version"]): float(each["weight"])
            for each in variants
            if each["role"] in ("primary", "canary") and float(each["weight"]) > 0
        },
        shadows={
            int(each["version"]): float(each["weight"]) for each in variants if each["role"] == "shadow"
        },
        loaded=frozenset((int(each["version"]), each.get("created_at_ms")) for each in fleet["loaded"]),
        failed={int(each["version"]): str(each["code"]) for each in fleet["failed"]},
        counted={
            int(version): Counted(
                requests=int(each["requests"]),
                errors=int(each["errors"]),
                within={float(bound): int(count) for bound, count in each["within_seconds"].items()},
            )
            for version, each in part["figures"].items()
            if str(version).isdigit()
        },
    )


def _answer(url: str, answer: Response) -> Answer:
    content = answer.json() if answer.status == 200 else None
    outputs: dict[str, Mapping[str, Any]] = {}
    if isinstance(content, dict) and isinstance(content.get("outputs"), list):
        outputs = {str(each.get("name")): each for each in content["outputs"] if isinstance(each, dict)}
    version = str(content.get("model_version", "")) if isinstance(content, dict) else ""
    return Answer(
        replica=url,
        status=answer.status,
        seconds=answer.seconds,
        version=int(version) if version.isdigit() else None,
        predictions=_rows(outputs.get(PREDICTIONS)),
        scores=_rows(outputs.get(PROBABILITIES)),
    )


def _rows(tensor: Mapping[str, Any] | None) -> list[Any] | None:
    """The values of a tensor, one entry a row."""
    if tensor is None or not isinstance(tensor.get("data"), list):
        return None
    data: list[Any] = tensor["data"]
    shape: Sequence[int] = tensor.get("shape") or [len(data)]
    if len(shape) == 1 or not data or isinstance(data[0], list):
        return data
    width = int(shape[1])
    return [data[start : start + width] for start in range(0, len(data), width)]


def _tensor(frame: pd.DataFrame, name: str) -> dict[str, Any]:
    column = frame[name]
    missing = column.isna().to_numpy()
    if column.dtype.kind == "M":
        column = column if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
        values = [None if gone else value.isoformat() for value, gone in zip(column, missing, strict=True)]
    else:
        values = [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]
    datatype = "FP64" if column.dtype.kind in "fiub" else "BYTES"
    if datatype == "FP64":
        values = [None if value is None else float(value) for value in values]
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values}
