"""The files of a lake in an S3 bucket, through boto3.

For :func:`airflow_provider_xops.lake.storage.open_storage`. Put-if-absent is S3's conditional write
(``If-None-Match: *``). boto3 and deltalake get the same endpoint, region, credentials and timeouts.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED, exceptions
from botocore.config import Config

from airflow_provider_xops.errors import ArgumentError, LakeError, UnavailableError, XOpsError
from airflow_provider_xops.lake.storage import Storage, checked, unsafe_storage
from airflow_provider_xops.settings import LakeSettings

__all__ = ["S3Storage"]

CONNECT_TIMEOUT_S = 5
RETRIES = 3
READERS = 8

_KEY, _SECRET, _TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_NO_CREDENTIALS = (
    exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError,
    exceptions.NoAuthTokenError, exceptions.TokenRetrievalError,
)  # fmt: skip


class S3Storage(Storage):
    """A bucket, or a prefix of one, on any S3 server that honors conditional writes."""

    def __init__(self, settings: LakeSettings) -> None:
        parts = urlsplit(settings.uri)
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        if not self.bucket or parts.query or parts.fragment:
            raise LakeError(
                f"{settings.uri} does not name a bucket and a prefix",
                code="lake.scheme",
                todo="use s3://bucket/prefix",
            )
        self.uri = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self._settings = settings
        self._lock = threading.Lock()
        self._options: dict[str, str] = {}
        self._cached: Any = None

    def put_if_absent(self, path: str, data: bytes, *, content_type: str | None = None) -> bool:
        self.check_writable()
        # The mark tells our own lost answer (written, response lost, retried, 412) from another's object.
        mark = uuid.uuid4().hex
        extra: dict[str, Any] = {"Metadata": {"xops-writer": mark}} | _content_type(content_type)

        def put(client: Any) -> bool:
            for _attempt in range(RETRIES):
                try:
                    client.put_object(**self._at(path), Body=data, IfNoneMatch="*", **extra)
                except exceptions.ClientError as error:
                    if _status(error) == 412:
                        return _retried(error) and self._mark(client, path) == mark
                    if _status(error) == 501:
                        raise unsafe_storage(
                            self.uri, "its server does not implement conditional writes"
                        ) from None
                    if _status(error) != 409:  # 409: S3 saw two conditional writes at once and says try again
                        raise
                else:
                    return True
            raise UnavailableError(
                f"{self.uri}/{path} is being written by others at the same time",
                code="unavailable.storage",
                todo="retry",
            )

        return bool(self._call("write", path, put))

    def overwrite(self, path: str, data: bytes) -> None:
        self.check_writable()
        self._call("write", path, lambda client: client.put_object(**self._at(path), Body=data))

    def get(self, path: str) -> bytes | None:
        def read(client: Any) -> bytes | None:
            try:
                return bytes(client.get_object(**self._at(path))["Body"].read())
            except exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise

        found: bytes | None = self._call("read", path, read)
        return found

    def get_many(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        with ThreadPoolExecutor(READERS) as pool:  # an object costs a round trip, and there may be thousands
            yield from zip(paths, pool.map(self.get, paths), strict=True)

    def exists(self, path: str) -> bool:
        return self._call("read", path, lambda client: self._head(client, path)) is not None

    def list(self, prefix: str) -> Iterator[str]:
        root = f"{self.prefix}/" if self.prefix else ""
        if prefix.rstrip("/"):
            checked(prefix)

        def read(client: Any) -> Any:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=root + prefix)
            return sorted(
                item["Key"].removeprefix(root) for page in pages for item in page.get("Contents", ())
            )

        return iter(self._call("list", prefix, read))

    def delete(self, path: str) -> None:
        self.check_writable()
        self._call("delete", path, lambda client: client.delete_object(**self._at(path)))

    def upload(self, local: Path, path: str) -> None:
        self.check_writable()
        target = self._at(path)
        self._call(
            "write", path, lambda client: client.upload_file(str(local), target["Bucket"], target["Key"])
        )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="xops-") as folder:
            yield Path(folder)

    def delta_options(self) -> dict[str, str]:
        with self._lock:
            options = self._resolved()
            if options != self._options:  # credentials were renewed: the next request of ours uses them too
                self._options, self._cached = options, None
        bounds = {"timeout": f"{self._settings.timeout_s:g}s", "connect_timeout": f"{CONNECT_TIMEOUT_S}s"}
        bounds |= {"max_retries": str(RETRIES), "retry_timeout": f"{self._settings.timeout_s:g}s"}
        if options.get("AWS_ENDPOINT_URL", "").startswith("http://"):
            bounds["AWS_ALLOW_HTTP"] = "true"
        return bounds | options

    def _resolved(self) -> dict[str, str]:
        """The settings' options; without credentials there, boto3's own chain is asked (deltalake's too)."""
        options = self._settings.resolved_options()
        if _KEY in options or _anonymous(options):
            return options
        session = boto3.Session(
            profile_name=options.get("AWS_PROFILE"), region_name=options.get("AWS_REGION")
        )
        try:
            found = session.get_credentials()
            frozen = found.get_frozen_credentials() if found is not None else None
        except exceptions.BotoCoreError as error:
            raise self._typed(error, "open", "the lake") from error
        if frozen is not None:
            options |= {_KEY: str(frozen.access_key), _SECRET: str(frozen.secret_key)}
            options |= {_TOKEN: frozen.token} if frozen.token else {}
        if session.region_name and "AWS_REGION" not in options:
            options["AWS_REGION"] = session.region_name
        return options

    def _client(self) -> Any:
        with self._lock:
            if self._cached is None:
                self._options = self._options or self._resolved()
                self._cached = _client(self._options, self._settings.timeout_s)
            return self._cached

    def _forget(self) -> None:
        with self._lock:
            self._options, self._cached = {}, None

    def _call(self, verb: str, path: str, request: Callable[[Any], Any]) -> Any:
        """``request(client)`` with typed errors; once more with fresh credentials if the old ones expired."""
        try:
            try:
                return request(self._client())
            except exceptions.ClientError as error:
                if _code(error) not in _EXPIRED:
                    raise
                self._forget()
                return request(self._client())
        except Exception as error:
            if not isinstance(error, exceptions.ClientError | exceptions.BotoCoreError | _transfer_errors()):
                raise
            raise self._typed(error, verb, path) from error

    def _typed(self, error: Exception, verb: str, path: str) -> XOpsError:
        what, code, status = f"cannot {verb} {path} in the lake at {self.uri}", _code(error), _status(error)
        context = {"s3_code": code, "http_status": status} if code else {}
        if isinstance(error, _NO_CREDENTIALS):
            return LakeError(
                what, why="there are no usable AWS credentials", code="lake.forbidden",
                todo="give the connection an AWS connection, storage options or a profile", context=context,
            )  # fmt: skip
        if isinstance(error, exceptions.ParamValidationError):
            return ArgumentError(
                what,
                why="the bucket or the path is not a valid S3 name",
                code="argument.path",
                todo="correct the lake's URI",
            )
        if code == "NoSuchBucket" or (status == 404 and verb in ("write", "list")):
            return LakeError(
                what, why=f"the bucket {self.bucket} does not exist", code="lake.not_found",
                todo="create the bucket, or correct the lake's URI", context=context,
            )  # fmt: skip
        if status in (401, 403) or code in _EXPIRED:
            return LakeError(
                what, why=f"the server refused these credentials ({code})", code="lake.forbidden",
                todo="check the keys; they must get, put, delete and list (s3:ListBucket) there",
                context=context,
            )  # fmt: skip
        if (
            status is None
            or status >= 500
            or status in (408, 409, 429)
            or code in ("SlowDown", "RequestTimeout")
        ):
            why = f"the server answered {status} {code}" if status else f"no answer ({type(error).__name__})"
            return UnavailableError(
                what, why=why, code="unavailable.storage", context=context,
                todo="retry; if it stays, check the endpoint and the network",
            )  # fmt: skip
        return LakeError(
            what, why=f"the server answered {status} {code}", context=context,
            code="lake.not_writable" if verb in ("write", "delete") else "lake.refused",
            todo="check the lake's URI and storage options",
        )  # fmt: skip

    def _at(self, path: str) -> dict[str, str]:
        return {
            "Bucket": self.bucket,
            "Key": f"{self.prefix}/{checked(path)}" if self.prefix else checked(path),
        }

    def _head(self, client: Any, path: str) -> Any:
        try:
            return client.head_object(**self._at(path))
        except exceptions.ClientError as error:
            if _code(error) in _ABSENT:
                return None
            raise

    def _mark(self, client: Any, path: str) -> str | None:
        head = self._head(client, path)
        return head["Metadata"].get("xops-writer") if head else None


def _client(options: dict[str, str], timeout_s: float) -> Any:
    endpoint = options.get("AWS_ENDPOINT_URL") or options.get("AWS_ENDPOINT_URL_S3") or None
    virtual = (
        options.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "false" if endpoint else "true").lower() == "true"
    )
    config: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": timeout_s,
        "retries": {"mode": "standard", "total_max_attempts": RETRIES},
        "s3": {"addressing_style": "virtual" if virtual and endpoint else "auto" if virtual else "path"},
    }
    if _anonymous(options):
        config["signature_version"] = UNSIGNED
    session = boto3.Session(
        aws_access_key_id=options.get(_KEY),
        aws_secret_access_key=options.get(_SECRET),
        aws_session_token=options.get(_TOKEN),
        region_name=options.get("AWS_REGION") or options.get("AWS_DEFAULT_REGION"),
    )
    verify = options.get("AWS_CA_BUNDLE") or None
    return session.client("s3", endpoint_url=endpoint, verify=verify, config=Config(**config))


def _anonymous(options: dict[str, str]) -> bool:
    return options.get("AWS_SKIP_SIGNATURE", "").lower() == "true"


def _transfer_errors() -> type[Exception]:
    from boto3.exceptions import S3UploadFailedError

    # The annotation holds with and without boto3's stub package.
    error: type[Exception] = S3UploadFailedError
    return error


def _content_type(content_type: str | None) -> dict[str, str]:
    return {"ContentType": content_type} if content_type else {}


def _response(error: Exception) -> dict[str, Any]:
    # upload_file wraps the server's answer in an error of its own.
    for seen in (error, error.__cause__, error.__context__):
        if isinstance(seen, exceptions.ClientError):
            return dict(seen.response)
    return {}


def _code(error: Exception) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _status(error: Exception) -> int | None:
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if status else None


def _retried(error: Exception) -> bool:
    return bool(_response(error).get("ResponseMetadata", {}).get("RetryAttempts"))
