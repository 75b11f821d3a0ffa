"""Putting a server together, and what of it can be wrong."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.online import process
from airflow_provider_xops.serving.online.auth import Guard
from airflow_provider_xops.serving.online.limits import Limits
from airflow_provider_xops.settings import MlflowSettings
from tests.unit.registry.builders import AS_OF, an_actor
from tests.unit.serving.online.edge_cases import Desk
from tests.unit.serving.online.fleet_cases import loaded_model, plan, primary


def site_of(*targets: process.Target, **changes: Any) -> Any:
    def nowhere() -> Any:
        raise AssertionError("nothing is read before it is started")

    values: dict[str, Any] = {
        "lake_factory": nowhere, "client": RegistryClient(MlflowSettings(tracking_uri="http://127.0.0.1:1")),
        "server": "gate-1", "limits": Limits(), "guard": Guard(environ={}), "clock": lambda: AS_OF,
        "actor": an_actor(),
    }  # fmt: skip
    return process.make_site(targets, **(values | changes))


def test_a_model_is_called_by_its_name_unless_two_aliases_of_it_are_served() -> None:
    alone = site_of(process.Target(model="late", alias="champion-eu"), process.Target(model="early"))
    assert list(alone.by_name) == ["late", "early"]
    both = site_of(process.Target(model="late"), process.Target(model="late", alias="champion-eu"))
    assert list(both.by_name) == ["late@champion", "late@champion-eu"]
    assert not both.ready


def test_every_model_has_a_log_of_its_own() -> None:
    logging_to = process.Logging(table="{model}_{alias}_log")
    targets = [process.Target(model="late"), process.Target(model="late", alias="shadow")]
    made = site_of(*targets, logging_to=logging_to)
    assert [each.scorer.prediction_log.table for each in made.serving] == [
        "late_champion_log", "late_shadow_log"
    ]  # fmt: skip
    with pytest.raises(ArgumentError) as caught:
        site_of(*targets, logging_to=process.Logging(table="{model}_log"))
    assert caught.value.code == "argument.prediction_log"


@pytest.mark.parametrize("own_process", [True, False])
def test_what_is_there_before_the_first_load_is_kept_from_the_collector(
    own_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def load(loader: Any, model: str, variant: Any) -> Any:
        done.append(f"load {loader.alias}")
        return loaded_model(variant.version)

    monkeypatch.setattr(process.gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(process.gc, "freeze", lambda: done.append("freeze"))
    monkeypatch.setattr(process.Loader, "prepare", lambda loader: done.append("import"))
    monkeypatch.setattr(process.Loader, "__call__", load)
    targets = [process.Target(model="late"), process.Target(model="late", alias="eu")]
    for each in site_of(*targets, own_process=own_process).serving:
        assert each.fleet.apply(plan(primary(1))).loaded == (1,)
    once = ["collect", "freeze"] if own_process else []
    assert done == ["import", *once, "load champion", "import", "load eu"]


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert [
        host for host in ("127.0.0.1", "127.1.2.3", "localhost", "::1") if not process.is_loopback(host)
    ] == []
    assert not any(
        process.is_loopback(host)
        for host in ("0.0.0.0", "::", "10.0.0.1", "", "localhost.evil.org", "127.evil.org")
    )


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gate-1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def test_it_speaks_tls_with_its_certificate(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    desk = Desk()
    server = uvicorn.Server(process._config(desk.site, desk.workers, files))
    listening = process.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    trusting = ssl.create_default_context(cafile=str(files[0]))
    body = json.dumps({"inputs": [[1, 2]]}).encode()

    async def story() -> bytes:
        running = asyncio.create_task(server._serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        head = f"Host: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(b"POST /invocations HTTP/1.1\r\n" + head.encode() + body)
        answer = await reader.read()
        writer.close()
        server.should_exit = True
        await running
        return answer

    answer = asyncio.run(asyncio.wait_for(story(), 30))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'{"predictions":[1]}')


def test_a_certificate_that_cannot_be_used_is_told_without_its_content(tmp_path: Path) -> None:
    desk = Desk()
    broken = tmp_path / "cert.pem"
    broken.write_text("no certificate")
    for files in ((broken, broken), (tmp_path / "none", tmp_path / "none")):
        with pytest.raises(ArgumentError) as caught:
            process._config(desk.site, desk.workers, files)
        assert caught.value.code == "argument.certificate"
