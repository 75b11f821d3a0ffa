"""Names, files and variants of a SageMaker endpoint, each the same whenever it is asked for again.

For the SageMaker target. Every name follows from the endpoint, the model version and the deployment, so that
a process that goes on after a kill finds what the killed one has made, and nothing is made twice.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.records import Deployment, ModelVersion, digest_of
from airflow_provider_xops.registry.artifacts import artifact_digest, download
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import other_files
from airflow_provider_xops.serving.targets._sagemaker_aws import Clients, translated

__all__ = [
    "BEFORE_TAG",
    "REMADE_TAG",
    "Names",
    "SageMakerSettings",
    "predictions_of",
    "upload_model",
    "variant_of",
    "version_of",
]

# Tags of an endpoint configuration: the one that served before it, and that the endpoint was deleted by us.
BEFORE_TAG, REMADE_TAG = "xops-before", "xops-remade"
DEPLOYMENT_TAG = "xops-deployment"
# What MLflow's own container asks of its environment.
CONTAINER = {"MLFLOW_DEPLOYMENT_FLAVOR_NAME": "python_function", "SERVING_ENVIRONMENT": "SageMaker"}
_ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_VARIANT = re.compile(r"v(\d+)-[0-9a-f]{10}")


@dataclass(frozen=True, kw_only=True)
class SageMakerSettings:
    """One endpoint, and what its models run on.

    :param endpoint: its name, at most 63 letters, digits and dashes. It need not exist yet.
    :param image_uri: the container: MLflow's own pyfunc image, or another one that answers MLflow's
        ``/invocations``.
    :param role_arn: the role that SageMaker takes to read the model's files.
    :param model_data: ``s3://bucket/prefix`` where the files are put.
    :param instance_type: for example ``ml.m5.large``. :param instance_count: of each version.
    :param environment: of the container, beside what MLflow's needs.
    :param variant: further fields of SageMaker's ``ProductionVariant``.
    :param network: SageMaker's ``VpcConfig`` of the models.
    :param update: SageMaker's ``DeploymentConfig`` of an update (alarms that undo it, for example).
    :param tags: of everything that is made.
    :raises ArgumentError: ``argument.sagemaker``.
    """

    endpoint: str
    image_uri: str
    role_arn: str
    model_data: str
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    variant: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    update: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if not _ENDPOINT_NAME.fullmatch(self.endpoint or ""):
            problems.append("endpoint: at most 63 letters, digits and single dashes between them")
        if not self.image_uri:
            problems.append("image_uri: the container's address in a registry")
        if not str(self.role_arn).startswith("arn:"):
            problems.append("role_arn: arn:aws:iam::...")
        parts = urlsplit(str(self.model_data))
        if parts.scheme != "s3" or not parts.netloc:
            problems.append("model_data: s3://bucket/prefix")
        if isinstance(self.instance_count, bool) or self.instance_count < 1:
            problems.append("instance_count: 1 or more")
        if problems:
            raise ArgumentError(
                "the SageMaker endpoint is not described as it must be",
                code="argument.sagemaker",
                why="; ".join(problems),
                todo="correct the xops_serving connection",
            )


@dataclass(frozen=True)
class Names:
    """The names of what belongs to one endpoint. All begin with ``prefix``, which is the endpoint's own."""

    endpoint: str

    @property
    def prefix(self) -> str:
        """Begins the name of everything that was made for this endpoint."""
        digest = hashlib.sha256(self.endpoint.encode()).hexdigest()[:8]
        return f"xops-{self.endpoint[:20].strip('-')}-{digest}-"

    def model(self, model: ModelVersion, settings: SageMakerSettings) -> str:
        """The model resource: a version in this container with this environment."""
        made_of = [model.record_id, settings.image_uri, settings.role_arn, dict(settings.environment)]
        digest = digest_of([*made_of, dict(settings.network), settings.model_data])[:10]
        return f"{self.prefix}v{model.version}-{digest}"

    def config(self, deployment: Deployment, stage: str) -> str:
        """The endpoint configuration of a deployment's stage: ``both``, ``alone`` or ``shadow-<share>``."""
        return f"{self.prefix}{deployment.record_id[:12]}-{stage}"

    def is_of(self, config: str, deployment: Deployment) -> bool:
        """Whether an endpoint configuration belongs to a deployment."""
        return config.startswith(f"{self.prefix}{deployment.record_id[:12]}-")


def variant_of(model: ModelVersion) -> str:
    """The variant's name of a version: ``v7-`` and ten digits that tell it from a re-created namesake."""
    return f"v{model.version}-{model.record_id[:10]}"


def version_of(variant: str) -> int | None:
    """The version that a variant's name tells; None: it was not named by us.

    >>> version_of("v7-0123456789"), version_of("AllTraffic")
    (7, None)
    """
    found = _VARIANT.fullmatch(variant)
    return int(found[1]) if found else None


def predictions_of(body: bytes) -> list[Any] | None:
    """The predictions in an answer of MLflow's ``/invocations``; None where it has none.

    >>> predictions_of(b'{"predictions": [1, 0]}'), predictions_of(b"body")
    ([1, 0], None)
    """
    try:
        found = json.loads(body)["predictions"]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(found, list):
        return None
    if found and all(isinstance(each, dict) and len(each) == 1 for each in found):
        return [next(iter(each.values())) for each in found]
    return found


def upload_model(
    clients: Clients, client: RegistryClient, model: ModelVersion, settings: SageMakerSettings
) -> str:
    """Put the proved files of a version where SageMaker reads them; gives their address.

    S3 itself counts the checksum of what it keeps: files that are there with the right one are not sent
    again.

    :raises ModelError: ``model.digest_mismatch``: nothing was sent.
    """
    parts = urlsplit(settings.model_data)
    key = "/".join(
        word for word in (parts.path.strip("/"), model.artifact_digest[:32], "model.tar.gz") if word
    )
    with tempfile.TemporaryDirectory(prefix="xops-sagemaker-") as folder:
        path = download(client, model.source_uri, Path(folder) / "model")
        found = artifact_digest(path)
        if found != model.artifact_digest:
            raise other_files(model, found)
        archive = Path(folder) / "model.tar.gz"
        with archive.open("wb") as stream:
            _pack(path, stream)
        checksum = base64.b64encode(_sha256(archive)).decode()
        if _checksum_there(clients, parts.netloc, key) != checksum:
            with translated(f"sending the files of {model.ref}"), archive.open("rb") as stream:
                clients.s3.put_object(
                    Bucket=parts.netloc,
                    Key=key,
                    Body=stream,
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=checksum,
                )
    return f"s3://{parts.netloc}/{key}"


def _checksum_there(clients: Clients, bucket: str, key: str) -> str | None:
    try:
        with translated(f"looking for s3://{bucket}/{key}"):
            found = clients.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    except NotFoundError:
        return None
    checksum = found.get("ChecksumSHA256")
    return str(checksum) if checksum else None


def _pack(folder: Path, stream: IO[bytes]) -> None:
    """A tar.gz of the folder's content; the same content gives the same bytes."""
    with (
        gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)


def _sha256(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
