"""The plugin's pages inside Airflow's own web server: who may see what, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.pins import pin
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor
from tests.unit.lake.helpers import put, segment

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture(scope="module")
def airflow() -> Iterator[Any]:
    """Airflow's API server with the installed plugins, and a maker of signed-in headers."""
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] = "False"
    from airflow.api_fastapi.app import create_app
    from starlette.testclient import TestClient

    with TestClient(create_app()) as client:
        yield client
    del os.environ["_AIRFLOW_PROCESS_CONTEXT"]
    del os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"]


@pytest.fixture
def viewer() -> dict[str, str]:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="u", role="viewer"))
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def get(
    airflow: Any, viewer: dict[str, str], lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    monkeypatch.setenv(
        "AIRFLOW_CONN_MY_LAKE", json.dumps({"conn_type": "xops_lake", "extra": {"uri": lake.uri}})
    )
    return lambda path: airflow.get(f"/xops/lakes/{path}", headers=viewer)


def test_a_report_is_served_and_can_run_nothing(get: Callable[[str], Any], lake: Lake) -> None:
    lake.evidence.put_report("validations/abc.html", b"<h1>failed</h1>", content_type="text/html")

    answer = get("my_lake/reports/validations/abc.html")

    assert (answer.status_code, answer.text) == (200, "<h1>failed</h1>")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")


def test_a_card_as_markdown_is_served_as_text(get: Callable[[str], Any], lake: Lake) -> None:
    lake.evidence.put_report("cards/abc.md", "# late v1 <b>é</b>".encode(), content_type="text/markdown")

    answer = get("my_lake/reports/cards/abc.md")

    assert (answer.status_code, answer.text) == (200, "# late v1 <b>é</b>")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_record_is_served_as_json(get: Callable[[str], Any], lake: Lake, actor: Actor) -> None:
    put(lake, "daily", segment("all", "f", {"id": [1]}))
    record = pin(
        lake, head(lake, "daily"), reason="legal hold", holder="case 17", actor=actor,
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip

    answer = get(f"my_lake/evidence/pins/{record.record_id}")

    assert answer.status_code == 200
    assert answer.json() == record.to_json()


@pytest.mark.parametrize(
    "path",
    ["my_lake/reports/validations/abc.html", "my_lake/evidence/pins/00000000000000000000000000000000"],
)
def test_nobody_who_is_not_signed_in_sees_anything(
    get: Callable[[str], Any], airflow: Any, path: str
) -> None:
    assert airflow.get(f"/xops/lakes/{path}").status_code == 401
    assert airflow.get(f"/xops/lakes/{path}?user=admin").status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "my_lake/reports/../lake.json",
        "my_lake/reports/%2e%2e/lake.json",
        "my_lake/reports/..%2flake.json",
        "my_lake/reports/a/../../lake.json",
        "my_lake/reports//etc/passwd.json",
        "my_lake/reports/validations/abc.parquet",
        "my_lake/evidence/pins/..%2f..%2flake",
        "my_lake/evidence/lake/abc",
        "my_lake/reports/validations/missing.html",
        "no_such_connection/reports/validations/abc.html",
    ],
)
def test_nothing_but_reports_and_records_can_be_read(
    get: Callable[[str], Any], lake: Lake, path: str
) -> None:
    lake.evidence.put_report("validations/abc.html", b"x", content_type="text/html")
    answer = get(path)
    assert answer.status_code == 404
    assert lake.lake_id not in answer.text


def test_a_connection_of_another_type_is_no_lake(
    get: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "fs", "extra": {"uri": str(tmp_path)}}))
    assert get("other/reports/validations/abc.html").status_code == 404


def test_a_folded_record_is_answered_with_the_command_that_reads_it(get: Callable[[str], Any]) -> None:
    answer = get("my_lake/evidence/pins/00000000000000000000000000000000")
    assert answer.status_code == 404
    assert "xops show pins" in answer.text


def test_what_serves_is_told_to_who_is_signed_in_without_the_key(
    airflow: Any, viewer: dict[str, str], lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"conn_type": "xops_serving", "host": "127.0.0.1:1", "password": "hidden-key-of-the-servers"}
    monkeypatch.setenv("AIRFLOW_CONN_MODELS", json.dumps(fields))
    monkeypatch.setenv("AIRFLOW_CONN_A_LAKE", json.dumps({"conn_type": "xops_lake", "host": lake.uri}))
    page = "/xops/serving/models/late%20flights/champion"

    assert airflow.get(page).status_code == 401
    answer = airflow.get(page, headers=viewer)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-store"
    assert (answer.json()["model"], answer.json()["alias"]) == ("late flights", "champion")
    (server,) = answer.json()["servers"]
    assert (server["server"], server["code"]) == ("http://127.0.0.1:1", "unavailable.server")
    assert "hidden-key" not in answer.text
    for other in ("a_lake", "nowhere"):
        refused = airflow.get(f"/xops/serving/{other}/late/champion", headers=viewer)
        assert refused.status_code == 404
        assert lake.uri not in refused.text


def test_the_plugin_loads_neither_fastapi_nor_the_lake_until_it_is_asked() -> None:
    code = (
        "import sys\nimport airflow.plugins_manager\nbefore = set(sys.modules)\n"
        "from airflow_provider_xops.plugin.xops import XOpsPlugin\nXOpsPlugin()\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert new <= {'airflow_provider_xops'}, new\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
