"""SIGKILL between each pair of steps of a registration and of a promotion; the rerun ends as if never killed.

A process of its own imports everything once and opens nothing; for each attempt it forks a child that is
killed right before its n-th step. Steps are what leaves the process: each request to MLflow, each upload,
each commit to the ledger and each evidence object.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake, open_lake
from airflow_provider_xops.registry import ledger, models
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import get_model, load_model
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.registry.reconcile import reconcile
from airflow_provider_xops.settings import LakeSettings, MlflowSettings
from tests.integration import registry_steps
from tests.processes import CONTEXT
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor

pytestmark = pytest.mark.server

NEVER = -1


def step_points() -> list[tuple[Any, str]]:
    """Everything that changes something outside the process."""
    from mlflow import MlflowClient

    from airflow_provider_xops.lake.evidence import EvidenceStore

    writing = (
        "create_run",
        "log_batch",
        "log_inputs",
        "set_tag",
        "set_terminated",
        "create_logged_model",
        "finalize_logged_model",
        "log_outputs",
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
        "set_model_version_tag",
    )
    ours = [(models, "upload_files"), (EvidenceStore, "put"), (ledger, "_commit")]
    return [*((MlflowClient, name) for name in writing), *ours]


def kill_before(step: int, report: Path) -> None:
    """From now on, count the steps in ``report``, and die by SIGKILL right before the given one."""
    done: list[str] = []

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if len(done) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(name)
            report.write_text(json.dumps(done))
            return original(*args, **kwargs)

        setattr(owner, name, watched)

    for owner, name in step_points():
        watch(owner, name)


def attempt(work: str, url: str, lake_uri: str, name: str, fence: int) -> None:
    """One try of the work under test."""
    client, lake = RegistryClient(MlflowSettings(url, timeout_s=30)), open_lake(LakeSettings(lake_uri))
    if work == "register":
        registry_steps.train(client, lake, name, fence=fence)
        return
    model, champion = get_model(lake, name, 2), get_model(lake, name, 1)
    promote(
        lake,
        client,
        model=model,
        expected=1,
        evaluation=a_recorded_evaluation(lake, model, champion),
        actor=an_actor("promotion", fence=fence),
        as_of=AS_OF,
    )


def forker(pipe: Connection) -> None:
    """Fork a child for each order; children die at will, this process stays."""
    while True:
        order = pipe.recv()
        if order is None:
            return
        step, report, arguments = order
        child = os.fork()
        if child == 0:
            status = 1
            try:
                kill_before(step, Path(report))
                attempt(*arguments)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        pipe.send(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


class Attempts:
    """Runs attempts in children of the forker."""

    def __init__(self, url: str, lake: Lake, folder: Path) -> None:
        self.url, self.lake_uri, self.report = url, lake.storage.uri, folder / "steps.json"
        self.pipe, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=forker, args=(other,), daemon=True)
        self.process.start()

    def run(self, work: str, name: str, *, kill_before: int = NEVER, fence: int = 1) -> tuple[int, list[str]]:
        """The child's exit status (negative: the signal), and the steps it has begun."""
        self.report.write_text("[]")
        self.pipe.send((kill_before, str(self.report), (work, self.url, self.lake_uri, name, fence)))
        assert self.pipe.poll(120), "the attempt did not end"
        return self.pipe.recv(), json.loads(self.report.read_text())

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()


@pytest.fixture
def attempts(mlflow_server: Any, lake: Lake, tmp_path: Path) -> Iterator[Attempts]:
    made = Attempts(mlflow_server.url, lake, tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(mlflow_server: Any) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


def outcome_of_promotion(client: RegistryClient, lake: Lake, name: str) -> dict[str, Any]:
    """What is left of a promotion, without the things that differ from model to model."""
    tag = json.loads(client.get_version(name, 2).tags["xops.decision"])
    entries = ledger.entries(lake, name)
    return {
        "alias": client.aliases(name),
        "ledger": [
            (e.sequence, str(e.outcome), e.from_version, e.to_version, e.decides, e.reason) for e in entries
        ],
        "tag": (tag["sequence"], tag["entry_hash"] == entries[-2].entry_hash),
        "problems": ledger.verify_chain(lake, name),
        "evaluations": len([e for e in lake.evidence.all("evaluations") if e.model.name == name]),
        "pins": sorted(
            (p.reason, p.holder.replace(name, "")) for p in lake.evidence.all("pins") if name in p.holder
        ),
        "reconcile": str(reconcile(lake, client, model_name=name, actor=an_actor(), as_of=AS_OF)[0].status),
    }


def two_versions(client: RegistryClient, lake: Lake) -> str:
    name = registry_steps.fresh_name("killed")
    first, _second = (registry_steps.bare_version(client, lake, name) for _ in range(2))
    promote(
        lake,
        client,
        model=first,
        expected=None,
        evaluation=a_recorded_evaluation(lake, first),
        actor=an_actor("first"),
        as_of=AS_OF,
    )
    return name


def test_a_promotion_killed_before_any_step_ends_as_one_never_killed(
    attempts: Attempts, client: RegistryClient, lake: Lake
) -> None:
    undisturbed = two_versions(client, lake)
    status, steps = attempts.run("promote", undisturbed)
    expected = outcome_of_promotion(client, lake, undisturbed)
    assert status == 0
    assert steps == [
        "put",
        "_commit",
        "put",
        "set_model_version_tag",
        "set_registered_model_alias",
        "_commit",
    ]
    assert expected["alias"] == {"champion": 2}
    assert expected["reconcile"] == "consistent"

    for step in range(len(steps)):
        name = two_versions(client, lake)

        assert attempts.run("promote", name, kill_before=step) == (-signal.SIGKILL, steps[:step])
        assert attempts.run("promote", name, fence=2)[0] == 0

        assert outcome_of_promotion(client, lake, name) == expected, (
            f"killed before step {step}, {steps[step]}"
        )


def test_a_promotion_killed_after_its_decision_is_finished_by_reconcile_too(
    attempts: Attempts, client: RegistryClient, lake: Lake
) -> None:
    for step in (3, 4, 5):
        name = two_versions(client, lake)
        attempts.run("promote", name, kill_before=step)

        finding = reconcile(lake, client, model_name=name, actor=an_actor("later"), as_of=AS_OF)[0]

        assert str(finding.status) == "applied"
        assert client.aliases(name) == {"champion": 2}
        assert [str(e.outcome) for e in ledger.entries(lake, name)] == ["promoted", "applied"] * 2


def outcome_of_registration(client: RegistryClient, lake: Lake, name: str) -> dict[str, Any]:
    with client.session("looking at what is left") as mlflow:
        experiment = client.experiment_id(name)
        versions = [int(each.version) for each in mlflow.search_model_versions(f"name = '{name}'")]
        unfinished = [m for m in mlflow.search_logged_models([experiment]) if "PENDING" in str(m.status)]
        statuses = [run.info.status for run in mlflow.search_runs([experiment])]
    records = [record for record in lake.evidence.all("models") if record.name == name]
    return {
        "versions": versions,
        "unfinished models": unfinished,
        "running": statuses.count("RUNNING"),
        "records": [
            (record.version, record.metrics, record.trusted_types, record.features) for record in records
        ],
        "pins": sorted(
            (p.reason, p.holder.replace(name, "")) for p in lake.evidence.all("pins") if name in p.holder
        ),
        "loads": type(load_model(client, lake, records[0])).__name__,
    }


def test_a_training_killed_before_any_step_registers_one_version_and_leaves_nothing_open(
    attempts: Attempts, client: RegistryClient, lake: Lake
) -> None:
    undisturbed = registry_steps.fresh_name("killed")
    status, steps = attempts.run("register", undisturbed)
    expected = outcome_of_registration(client, lake, undisturbed)
    assert status == 0
    assert {"create_run", "upload_files", "create_model_version", "set_terminated"} <= set(steps)
    assert expected["versions"] == [1]

    for step in range(len(steps)):
        name = registry_steps.fresh_name("killed")

        status, begun = attempts.run("register", name, kill_before=step)
        assert (status, begun) == (-signal.SIGKILL, steps[:step])
        assert attempts.run("register", name, fence=2)[0] == 0

        assert outcome_of_registration(client, lake, name) == expected, (
            f"killed before step {step}, {steps[step]}"
        )
