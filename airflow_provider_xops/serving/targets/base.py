"""What a place that serves models must be able to do, so that a rollout can bring a version in and out.

For :mod:`airflow_provider_xops.serving.targets.rollout`, which decides in which order these are called, and
for whoever adds a target of their own: subclass :class:`ServingBackend`.

A backend object belongs to one piece of work: it is made with the lake, an actor and a clock where its target
needs them. It keeps nothing between calls that it could not ask its target again: the process may be killed
after any call, and another object made from the same settings goes on. So every method that changes something
is idempotent: it finds by ``deployment.record_id`` what it has done before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import Deployment, ModelVersion

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Answer", "Observation", "Readiness", "ServingBackend", "VersionFigures", "check_steps"]


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """Whether something holds on every replica.

    :param reason: why not yet, for the log; empty when ready.
    :param failed: it never will: waiting on is useless (files refused, the endpoint went to ``Failed``).
    :param replicas: how many said yes.
    """

    ready: bool
    reason: str = ""
    replicas: int = 0
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one replica answered to one request.

    :param replica: its address, without credentials.
    :param status: the HTTP status; 200 is an answer.
    :param version: the version that the answer itself names; None: it names none.
    :param predictions: one a row, plain Python values; None where it gave none.
    :param scores: the probabilities of each row in the order of the model's classes; None where the target
        gives none.
    """

    replica: str
    status: int
    seconds: float
    version: int | None = None
    predictions: Sequence[Any] | None = None
    scores: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True, kw_only=True)
class VersionFigures:
    """Figures of the requests that one version answered.

    :param errors: answers that were the server's fault (5xx), of ``requests``.
    :param p99_ms: the 99th percentile of the seconds they took, in ms; None: too little to say, or unknown.
    """

    requests: int
    errors: int
    p99_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What callers got in a window of time.

    :param versions: by version number; a version that got no request may be missing.
    :param seconds: length of the window.
    """

    versions: Mapping[int, VersionFigures] = field(default_factory=dict)
    seconds: float = 0.0


class ServingBackend(ABC):
    """One place where models are served: some servers, a model server with a repository, an endpoint.

    Errors: :class:`~airflow_provider_xops.errors.UnavailableError` when the target did not answer in time
    (nothing is known to be wrong; the same call may be made again), anything else when it refused.
    """

    #: what kind of target: ``xops``, ``v2``, ``sagemaker``
    kind: ClassVar[str]
    #: whether requests can be shared among versions; if not, the only step is 1.0
    supports_weights: ClassVar[bool] = True
    #: whether a copy of the requests can be sent to a version whose answers nobody gets
    supports_shadow: ClassVar[bool] = False
    #: whether :meth:`observe` knows figures of the requests
    has_figures: bool = True
    #: whether the target swaps by itself, at once, to what the ledger says
    follows_ledger: ClassVar[bool] = False

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """Which place it is, stable and without credentials: part of a deployment's identity."""

    @abstractmethod
    def prepare(self, deployment: Deployment, model: ModelVersion) -> None:
        """Have the version loaded beside what serves; no request goes to it yet. Need not wait for it."""

    @abstractmethod
    def ready(self, deployment: Deployment, model: ModelVersion) -> Readiness:
        """Whether the version is loaded on every replica. Asked again and again until it is."""

    @abstractmethod
    def ask(
        self, model: ModelVersion, frame: pd.DataFrame, *, alias: str, version: int | None
    ) -> tuple[Answer, ...]:
        """Ask every replica once for predictions of ``frame`` (the model's features, in their order).

        Asking changes nobody's share of the requests.

        :param version: exactly this one, whatever its share is; None: whichever serves callers.
        """

    @abstractmethod
    def shift(self, deployment: Deployment, model: ModelVersion, weight: float) -> None:
        """Give the version this share of the requests; 1.0: it alone. Need not wait until it is so.

        With ``deployment.settings["role"] == "shadow"`` the share that it is asked beside the one that
        answers.
        """

    @abstractmethod
    def settled(self, deployment: Deployment, model: ModelVersion, weight: float) -> Readiness:
        """Whether every replica shares the requests so."""

    @abstractmethod
    def serving(self, model: str, alias: str) -> dict[int, float]:
        """The versions that answer callers and their shares, as the target itself says; empty: none."""

    @abstractmethod
    def mark(self, deployment: Deployment, *, as_of: datetime) -> Any:
        """The beginning of a window of observation: whatever :meth:`observe` needs to know of it.

        Plain JSON (texts as keys), so that another process may end the window; of anything else, such as a
        tuple or a datetime, only this one can.

        :param deployment: for its model and alias; a check of what is in service passes one that is not
            recorded.
        """

    @abstractmethod
    def observe(self, deployment: Deployment, *, since: Any, as_of: datetime) -> Observation | None:
        """Figures of the requests of callers since a mark; None where the target has none."""

    @abstractmethod
    def finish(self, deployment: Deployment, model: ModelVersion, *, keep_previous: bool) -> None:
        """The version serves alone: keep the previous one loaded for a rollback, or unload it."""

    @abstractmethod
    def abort(self, deployment: Deployment, model: ModelVersion) -> None:
        """The previous version alone again, the candidate unloaded. Also when nothing was done yet."""

    def close(self) -> None:  # noqa: B027
        """Close what the object holds open; most hold nothing."""


def check_steps(backend: ServingBackend, steps: Sequence[float], *, role: str, whole: bool) -> None:
    """See that a target can share requests in these steps.

    :param steps: shares of the requests, rising, in (0, 1].
    :param role: ``canary`` or ``shadow``. :param whole: the candidate becomes the champion, so the last step
        is 1.0; else it must stay below.
    :raises ArgumentError: ``argument.steps``.
    """

    def refuse(why: str, todo: str) -> ArgumentError:
        return ArgumentError(
            "the requests cannot be shifted in these steps", code="argument.steps", why=why, todo=todo
        )

    if not steps or any(not 0 < step <= 1 for step in steps) or list(steps) != sorted(set(steps)):
        raise refuse("a step is a share of the requests", "give rising shares above 0, up to 1")
    if role not in ("canary", "shadow"):
        raise refuse(f"there is no role {role!r}", "use canary or shadow")
    if whole and (role == "shadow" or steps[-1] != 1):
        raise refuse("the candidate becomes the champion, which answers everything", "end with 1.0")
    if role == "shadow" and not backend.supports_shadow:
        raise refuse(f"a target of kind {backend.kind} has no shadow", "use another target or role canary")
    if role == "canary" and not whole and steps[-1] == 1:
        raise refuse("only what the ledger says may answer every request", "stay below 1, or promote it too")
    if not backend.supports_weights and tuple(steps) != (1.0,) and role == "canary":
        raise refuse(f"a target of kind {backend.kind} serves one version at a time", "use steps=[1.0]")
