"""AWS as far as a SageMaker endpoint needs it: clients, typed errors, and questions with short answers.

For the SageMaker target. Only this module knows how AWS says *there is no such thing* and *not now*. Texts of
a model container are never shown: they quote the rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_xops.errors import (
    ArgumentError,
    NotFoundError,
    RegistryError,
    UnavailableError,
    XOpsError,
)

__all__ = ["Clients", "EndpointNow", "SageMaker", "busy", "plain_clients", "translated"]

SERVICES = ("sagemaker", "sagemaker-runtime", "s3", "cloudwatch")
READ_TIMEOUT_S, CONNECT_TIMEOUT_S = 70, 10
_ABSENT = {"ResourceNotFound", "404", "NoSuchKey", "NotFound"}
_FORBIDDEN = {
    "AccessDeniedException", "AccessDenied", "403", "UnrecognizedClientException", "InvalidClientTokenId",
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "SignatureDoesNotMatch",
}  # fmt: skip
_LATER = {
    "ThrottlingException", "Throttling", "RequestLimitExceeded", "ServiceUnavailable", "InternalFailure",
    "InternalServerError", "InternalError", "SlowDown", "ResourceInUse", "ConflictException",
    "RequestTimeout", "503", "500",
}  # fmt: skip
_NOT_NOW = ("in-progress", "in progress", "currently being", "while status is")


@dataclass(frozen=True)
class Clients:
    """The boto3 clients that a target uses; their credentials do not show."""

    sagemaker: Any = field(repr=False)
    runtime: Any = field(repr=False)
    s3: Any = field(repr=False)
    cloudwatch: Any = field(repr=False)

    @classmethod
    def made_by(cls, make: Callable[[str], Any]) -> Clients:
        """From whatever makes a client for a service, an AWS connection for example."""
        return cls(*(make(service) for service in SERVICES))


@dataclass(frozen=True)
class EndpointNow:
    """What an endpoint is at a moment.

    :param status: SageMaker's word: ``InService``, ``Updating``, ``Failed`` and so on.
    :param config: the endpoint configuration that serves; ``pending`` the one it is being updated to.
    :param weights: by variant, the share of the requests it has now, as SageMaker counts it.
    :param desired: the same that it was told last.
    :param instances: by variant, how many instances it has and is to have.
    :param shadows: by shadow variant, its weight.
    :param reason: why the last change failed; empty if it did not.
    """

    status: str
    config: str
    pending: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    desired: Mapping[str, float] = field(default_factory=dict)
    instances: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    shadows: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def settled(self) -> bool:
        """Whether it serves and is not being changed."""
        return self.status == "InService"

    @property
    def dead(self) -> bool:
        """Whether it has come to an end from which it does not recover by itself."""
        return self.status in ("Failed", "UpdateRollbackFailed", "OutOfService")

    def shares(self) -> dict[str, float]:
        """The weights as shares of the requests; empty if all are zero."""
        total = sum(self.weights.values())
        return {name: weight / total for name, weight in self.weights.items()} if total else {}


def plain_clients(region: str | None = None, *, endpoint_url: str | None = None) -> Clients:
    """Clients with boto3's own credentials (environment, profile, role), bounded in time and retries.

    :raises ArgumentError: ``argument.aws``: no region is set anywhere.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "max_attempts": 3},
    )
    try:
        # A session of its own: boto3's default one keeps the credentials it found first, rotated or revoked.
        session = boto3.Session()
        return Clients.made_by(
            lambda service: session.client(
                service, region_name=region, endpoint_url=endpoint_url, config=config
            )
        )
    except (BotoCoreError, ValueError) as error:
        raise ArgumentError(
            "no client for SageMaker can be made",
            code="argument.aws",
            why=type(error).__name__,
            todo="name the region and an AWS connection in the xops_serving connection",
        ) from None


def busy(endpoint: str, status: str) -> UnavailableError:
    """The error for an endpoint that is being changed."""
    return UnavailableError(
        f"the SageMaker endpoint {endpoint} is {status}",
        code="unavailable.endpoint_busy",
        why="SageMaker makes one change at a time, and an update takes minutes",
        todo="try again in some minutes",
        context={"status": status},
    )


class SageMaker:
    """SageMaker's control plane, asked about one endpoint."""

    def __init__(self, clients: Clients, endpoint: str) -> None:
        self._client = clients.sagemaker
        self.endpoint = endpoint

    def now(self) -> EndpointNow | None:
        """The endpoint at this moment; None: there is none.

        :raises UnavailableError: ``unavailable.aws``. :raises RegistryError: ``registry.aws_forbidden``,
            ``registry.aws_refused``.
        """
        found = self._found("describe_endpoint", EndpointName=self.endpoint)
        if found is None:
            return None
        variants = found.get("ProductionVariants") or []
        pending = (found.get("PendingDeploymentSummary") or {}).get("EndpointConfigName", "")
        return EndpointNow(
            status=found["EndpointStatus"],
            config=found["EndpointConfigName"],
            pending=pending if pending != found["EndpointConfigName"] else "",
            weights={each["VariantName"]: float(each.get("CurrentWeight") or 0) for each in variants},
            desired={each["VariantName"]: float(each.get("DesiredWeight") or 0) for each in variants},
            instances={
                each["VariantName"]: (each.get("CurrentInstanceCount"), each.get("DesiredInstanceCount"))
                for each in variants
            },
            shadows={
                each["VariantName"]: float(each.get("CurrentWeight") or 0)
                for each in found.get("ShadowProductionVariants") or []
            },
            reason=" ".join(str(found.get("FailureReason") or "").split())[:200],
        )

    def config(self, name: str) -> dict[str, Any] | None:
        """An endpoint configuration; None: there is none of that name."""
        return self._found("describe_endpoint_config", EndpointConfigName=name)

    def tags(self, arn: str) -> dict[str, str]:
        """The tags of a resource."""
        found = self.do("list_tags", ResourceArn=arn)
        return {each["Key"]: each["Value"] for each in found.get("Tags", [])}

    def exists(self, model: str) -> bool:
        """Whether there is a model resource of that name."""
        return self._found("describe_model", ModelName=model) is not None

    def names(self, operation: str, kind: str, key: str, prefix: str) -> list[str]:
        """The names of all resources of a kind that begin with ``prefix``."""
        with translated(f"listing what begins with {prefix}"):
            pages = self._client.get_paginator(operation).paginate(NameContains=prefix)
            found = [str(each[key]) for page in pages for each in page.get(kind, [])]
        return [name for name in found if name.startswith(prefix)]

    def do(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make one request.

        :raises UnavailableError: ``unavailable.aws``, ``unavailable.endpoint_busy``.
        :raises NotFoundError: ``not_found.aws``.
        :raises RegistryError: ``registry.aws_forbidden``, ``registry.aws_limit``, ``registry.aws_refused``.
        """
        with translated(f"{operation} for the endpoint {self.endpoint}"):
            found: dict[str, Any] = getattr(self._client, operation)(**arguments)
            return found

    def make(self, operation: str, is_there: Callable[[], bool], **arguments: Any) -> None:
        """Make something; one that was made by a request whose answer was lost is no error (clients send a
        request again by themselves).

        :param is_there: looks whether exactly this has been made.
        :raises XOpsError: as :meth:`do`.
        """
        try:
            self.do(operation, **arguments)
        except RegistryError as error:
            if error.code != "registry.aws_refused" or not is_there():
                raise

    def delete(self, operation: str, **arguments: Any) -> None:
        """Delete something; what is not there is deleted."""
        with contextlib.suppress(NotFoundError):
            self.do(operation, **arguments)

    def _found(self, operation: str, **arguments: Any) -> dict[str, Any] | None:
        try:
            return self.do(operation, **arguments)
        except NotFoundError:
            return None


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """AWS's errors as ours; others pass unchanged."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _of(error, doing) from None
    except BotoCoreError as error:
        name = type(error).__name__
        if "Credentials" in name or name in ("ProfileNotFound", "ParamValidationError"):
            raise ArgumentError(
                f"AWS was not asked: {doing}",
                code="argument.aws",
                why=name,
                todo="correct the AWS connection, or what the xops_serving connection says of the endpoint",
            ) from None
        raise UnavailableError(
            f"AWS did not answer: {doing}",
            code="unavailable.aws",
            why=name,
            todo="look whether the service can be reached from here",
        ) from None


def _of(error: Any, doing: str) -> XOpsError:
    said = error.response.get("Error", {})
    code, text = str(said.get("Code", "")), " ".join(str(said.get("Message", "")).split())[:300]
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    lowered, context = text.lower(), {"aws_code": code}
    what = f"AWS refused: {doing}"
    if code in _ABSENT or (code == "ValidationException" and "could not find" in lowered):
        return NotFoundError(what, code="not_found.aws", why=text, todo="check the name and the region")
    if code in _FORBIDDEN:
        return RegistryError(
            what, code="registry.aws_forbidden", why=f"{code}: these credentials may not do it",
            todo="give the role the permission, or name another AWS connection", context=context,
        )  # fmt: skip
    if code == "ValidationException" and any(word in lowered for word in _NOT_NOW):
        return UnavailableError(
            what,
            code="unavailable.endpoint_busy",
            why=text,
            todo="try again in some minutes",
            context=context,
        )
    if code in _LATER or status >= 500 or status == 429:
        return UnavailableError(
            f"AWS did not do it: {doing}", code="unavailable.aws", why=f"{code} ({status})",
            todo="try again; look at AWS's health page if it goes on", context=context,
        )  # fmt: skip
    if code == "ResourceLimitExceeded":
        return RegistryError(
            what, code="registry.aws_limit", why=text, todo="ask AWS for a higher quota, or use less",
            context=context,
        )  # fmt: skip
    return RegistryError(
        what, code="registry.aws_refused", why=f"{code}: {text}", todo="correct what the reason names",
        context=context,
    )  # fmt: skip
