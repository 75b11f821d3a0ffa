"""The V2 target with servers that fail, restart and lag, and a process that is killed at any request."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from airflow_provider_xops.errors import ArgumentError, ConflictError, ModelError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Deployment, ModelRef, ModelVersion
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.serving.targets import _v2_client, _v2_repository
from airflow_provider_xops.serving.targets.v2 import V2Backend
from tests.unit.registry.builders import AS_OF, a_model
from tests.unit.serving.targets.builders import a_deployment
from tests.unit.serving.targets.fake_v2 import FakeHttp, FakeServer, Killed

URLS = ["http://one:8080", "http://two:8080"]
ROWS = pd.DataFrame({"a": [1.0, 2.0], "b": [0.5, None]})


@dataclass
class World:
    """Two servers over one repository, and versions that say their own number."""

    lake: Lake
    folder: Path
    servers: list[FakeServer]
    versions: dict[int, ModelVersion]

    def backend(self, **changes: Any) -> V2Backend:
        """A target as a new process makes it."""
        values: dict[str, Any] = {"urls": URLS, "repository": self.folder, **changes}
        return V2Backend(self.lake, None, **values)  # type: ignore[arg-type]

    def deployment(self, version: int, *, previous: int | None = None, key: str = "") -> Deployment:
        """A deployment of a version."""
        before: ModelRef | None = self.versions[previous].ref if previous else None
        endpoint = self.backend().endpoint
        return a_deployment(
            self.versions[version], target="v2", endpoint=endpoint, key=key or f"v{version}", previous=before
        )

    def deploy(self, version: int, *, previous: int | None = None, keep: bool = True) -> None:
        """What a rollout does at the target."""
        target, model = self.backend(), self.versions[version]
        work = self.deployment(version, previous=previous)
        target.prepare(work, model)
        assert target.ready(work, model).ready
        target.ask(model, ROWS, alias="champion", version=version)
        target.shift(work, model, 1.0)
        assert target.settled(work, model, 1.0).ready
        target.finish(work, model, keep_previous=keep)

    def answers(self) -> list[int | None]:
        """The version that answers callers at each server."""
        return [
            int(server.loaded["late"]["versions"][0]) if "late" in server.loaded else None
            for server in self.servers
        ]

    def names(self) -> list[list[str]]:
        """What each server has loaded."""
        return [sorted(server.loaded) for server in self.servers]

    def state(self) -> Any:
        """Everything that a later process can find: the repository and what is loaded."""
        files = {
            path.relative_to(self.folder).as_posix(): path.read_text()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        return files, [
            {name: (each["versions"], each["platform"]) for name, each in server.loaded.items()}
            for server in self.servers
        ]


Make = Callable[[], World]


@pytest.fixture
def make(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    logged = {}
    for version in (1, 2, 3):
        folder = tmp_path / f"logged-{version}"
        folder.mkdir()
        (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": {}}, "of": version}))
        record = a_model(version, artifact_digest=artifact_digest(folder))
        lake.evidence.put(record)
        logged[version] = (folder, record)

    def download(client: Any, uri: str, into: Path) -> Path:
        return Path(shutil.copytree(logged[int(uri[-1])][0], into / "model"))

    monkeypatch.setattr(_v2_repository, "download", download)
    monkeypatch.setattr(_v2_client, "Http", FakeHttp)
    # Hundreds of worlds are made, and none outlives a power cut.
    monkeypatch.setattr(_v2_repository.os, "fsync", lambda number: None)
    numbers = iter(range(10_000))

    def make() -> World:
        folder = tmp_path / f"models-{next(numbers)}"
        folder.mkdir()
        pair = [FakeServer(folder), FakeServer(folder)]
        monkeypatch.setattr(FakeHttp, "servers", dict(zip(URLS, pair, strict=True)), raising=False)
        monkeypatch.setattr(FakeHttp, "made", 0)
        monkeypatch.setattr(FakeHttp, "kill_at", None)
        return World(lake, folder, pair, {version: record for version, (_, record) in logged.items()})

    return make


@pytest.fixture
def world(make: Make) -> World:
    """Version 1 serves."""
    made = make()
    made.deploy(1)
    return made


def kill(monkeypatch: pytest.MonkeyPatch, number: int | None, *, after: bool) -> None:
    monkeypatch.setattr(FakeHttp, "made", 0)
    monkeypatch.setattr(FakeHttp, "kill_at", number)
    monkeypatch.setattr(FakeHttp, "after", after)


def test_callers_are_answered_by_the_old_version_until_the_shift(world: World) -> None:
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    target.prepare(work, model)
    assert target.ready(work, model).ready
    assert world.answers() == [1, 1]
    asked = target.ask(model, ROWS, alias="champion", version=2)
    assert [(each.version, each.predictions) for each in asked] == [(2, [2, 2])] * 2
    assert target.serving("late", "champion") == {1: 1.0}
    target.shift(work, model, 1.0)
    assert target.settled(work, model, 1.0).ready
    assert target.serving("late", "champion") == {2: 1.0}
    asked = target.ask(model, ROWS, alias="champion", version=None)
    assert [(each.version, each.predictions) for each in asked] == [(2, [2, 2])] * 2


def test_the_previous_version_stays_loaded_only_if_it_is_to_be_kept(make: Make) -> None:
    for keep, expected in ((True, ["late", "late:v1"]), (False, ["late"])):
        world = make()
        world.deploy(1)
        world.deploy(2, previous=1, keep=keep)
        assert world.names() == [expected, expected]
        world.deploy(3, previous=2, keep=keep)
        assert world.names() == [[name.replace("v1", "v2") for name in expected]] * 2
        digests = {path.name for path in world.folder.glob("*/.files/*")}
        wanted = {3, 2} if keep else {3}
        assert digests == {world.versions[each].artifact_digest[:32] for each in wanted}


@pytest.mark.parametrize(
    ("after", "keep"), [(False, True), (True, True), (True, False)], ids=["before", "after", "after, alone"]
)
def test_killed_at_any_request_the_second_run_ends_as_if_nothing_had_been(
    make: Make, monkeypatch: pytest.MonkeyPatch, after: bool, keep: bool
) -> None:
    quiet = make()
    quiet.deploy(1)
    kill(monkeypatch, None, after=after)
    quiet.deploy(2, previous=1, keep=keep)
    requests, wanted = FakeHttp.made, quiet.state()
    assert requests > 20
    for number in range(1, requests + 1):
        world = make()
        world.deploy(1)
        kill(monkeypatch, number, after=after)
        with pytest.raises(Killed):
            world.deploy(2, previous=1, keep=keep)
        assert set(world.answers()) <= {1, 2}
        kill(monkeypatch, None, after=after)
        world.deploy(2, previous=1, keep=keep)
        assert world.state() == wanted, f"killed at request {number}"


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_request_and_then_aborted_everything_is_as_before(
    make: Make, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    world = make()
    world.deploy(1)
    before = world.state()
    kill(monkeypatch, None, after=after)
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]

    def forward() -> None:
        target.prepare(work, model)
        target.shift(work, model, 1.0)

    forward()
    requests = FakeHttp.made
    target.abort(work, model)
    assert world.state() == before
    for number in range(1, requests + 1):
        kill(monkeypatch, number, after=after)
        with pytest.raises(Killed):
            forward()
        kill(monkeypatch, None, after=after)
        target.abort(work, model)
        assert world.state() == before, f"killed at request {number}"


def test_an_abort_that_was_killed_is_ended_by_the_next_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make()
    world.deploy(1)
    before = world.state()
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    for number in range(1, 100):
        kill(monkeypatch, None, after=False)
        target.prepare(work, model)
        target.shift(work, model, 1.0)
        kill(monkeypatch, number, after=True)
        try:
            target.abort(work, model)
        except Killed:
            kill(monkeypatch, None, after=False)
            target.abort(work, model)
        else:
            break
        assert world.state() == before, f"killed at request {number}"
    assert number > 3


def test_servers_that_restart_at_any_moment_come_to_what_the_others_serve(world: World) -> None:
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    target.prepare(work, model)
    world.servers[0].restart()
    assert (world.answers(), target.ready(work, model).ready) == ([1, 1], True)
    target.shift(work, model, 1.0)
    world.servers[1].restart()
    assert (world.answers(), target.settled(work, model, 1.0).ready) == ([2, 2], True)
    target.finish(work, model, keep_previous=True)
    world.servers[0].restart()
    assert world.names() == [["late", "late:v1"]] * 2


def test_a_version_that_a_server_cannot_load_leaves_nothing_that_keeps_it_from_starting(world: World) -> None:
    before = world.state()
    world.servers[1].refuses = {"2"}
    with pytest.raises(ModelError) as refused:
        world.backend().prepare(world.deployment(2, previous=1), world.versions[2])
    assert refused.value.code == "model.not_loaded"
    assert "4711" not in str(refused.value)
    world.servers[1].restart()
    world.backend().abort(world.deployment(2, previous=1), world.versions[2])
    assert world.state() == before


def test_a_shift_that_one_server_refuses_is_taken_back_on_all(world: World) -> None:
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    target.prepare(work, model)
    world.servers[1].refuses = {"2"}
    with pytest.raises(ModelError):
        target.shift(work, model, 1.0)
    assert world.answers() == [1, 1]
    target.abort(work, model)
    for server in world.servers:
        server.restart()
    assert world.answers() == [1, 1]


def test_a_server_that_is_down_at_the_shift_gets_it_when_it_is_back(world: World) -> None:
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    target.prepare(work, model)
    world.servers[1].down = True
    with pytest.raises(UnavailableError):
        target.shift(work, model, 1.0)
    world.servers[1].down = False
    assert world.answers() == [2, 1]
    assert target.serving("late", "champion") == {2: 0.5, 1: 0.5}
    target.shift(work, model, 1.0)
    assert world.answers() == [2, 2]
    target.abort(work, model)
    assert world.answers() == [1, 1]


def test_a_server_that_is_slow_to_see_the_folder_is_told_again(world: World) -> None:
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    target.prepare(work, model)
    del world.servers[0].loaded["late:v2"]
    assert target.ready(work, model) == target.ready(work, model)
    assert "late:v2" in world.servers[0].loaded


def test_the_first_deployment_of_a_model_is_aborted_to_nothing(make: Make) -> None:
    world = make()
    target, work, model = world.backend(), world.deployment(1), world.versions[1]
    target.prepare(work, model)
    target.shift(work, model, 1.0)
    target.abort(work, model)
    assert world.names() == [[], []]
    assert [path for path in world.folder.rglob("*") if path.is_file()] == []


def test_an_abort_leaves_alone_what_a_later_deployment_put_there(world: World) -> None:
    target = world.backend()
    early, late = world.deployment(2, previous=1), world.deployment(3, previous=1)
    target.prepare(early, world.versions[2])
    target.shift(early, world.versions[2], 1.0)
    target.prepare(late, world.versions[3])
    target.shift(late, world.versions[3], 1.0)
    target.abort(early, world.versions[2])
    assert world.answers() == [3, 3]
    assert target.settled(late, world.versions[3], 1.0).ready


def test_another_alias_is_another_name_on_the_servers(world: World) -> None:
    target, model = world.backend(), world.versions[2]
    work = a_deployment(model, target="v2", endpoint=target.endpoint, alias="champion-eu")
    target.prepare(work, model)
    target.shift(work, model, 1.0)
    assert target.serving("late", "champion-eu") == {2: 1.0}
    assert target.serving("late", "champion") == {1: 1.0}
    target.abort(work, model)
    assert world.names() == [["late"], ["late"]]


def test_settings_of_somebody_else_under_the_same_name_are_not_touched(make: Make) -> None:
    world = make()
    (world.folder / "theirs").mkdir()
    (world.folder / "theirs" / "model-settings.json").write_text('{"name": "late", "parameters": {}}')
    with pytest.raises(ConflictError) as refused:
        world.backend().prepare(world.deployment(1), world.versions[1])
    assert (refused.value.code, refused.value.retryable) == ("conflict.served_name", False)
    assert [path.name for path in world.folder.iterdir()] == ["theirs"]


def test_servers_that_read_another_folder_are_found_out(world: World, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = world.backend(repository=elsewhere)
    with pytest.raises((ConflictError, ModelError)):
        other.prepare(world.deployment(2, previous=1), world.versions[2])
    assert world.answers() == [1, 1]
    for server in world.servers:
        server.folder = tmp_path / "nothing-here"
        server.loaded = {}
    with pytest.raises(ModelError) as refused:
        world.backend().prepare(world.deployment(2, previous=1), world.versions[2])
    assert "model repository" in str(refused.value)


def test_a_share_below_the_whole_is_refused(world: World) -> None:
    with pytest.raises(ArgumentError) as refused:
        world.backend().shift(world.deployment(2, previous=1), world.versions[2], 0.5)
    assert refused.value.code == "argument.steps"
    assert world.answers() == [1, 1]


def test_an_answer_in_the_middle_of_a_swap_names_no_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    target.prepare(work, model)
    plain = FakeServer.answer

    def swaps_meanwhile(self: FakeServer, method: str, path: str, content: Any) -> tuple[int, Any]:
        found = plain(self, method, path, content)
        if path == "/v2/models/late/infer":
            monkeypatch.setattr(FakeServer, "answer", plain)
            target.shift(work, model, 1.0)
        return found

    monkeypatch.setattr(FakeServer, "answer", swaps_meanwhile)
    first, second = target.ask(model, ROWS, alias="champion", version=None)
    assert (first.version, second.version) == (None, 2)


def test_counters_tell_of_the_version_that_served_all_the_window(world: World) -> None:
    target = world.backend(metrics_urls=[f"{url}/metrics" for url in URLS])
    assert (target.has_figures, world.backend().has_figures) == (True, False)
    work = world.deployment(1)
    mark = target.mark(work, as_of=AS_OF)
    world.servers[0].requests += 10
    world.servers[0].failures += 3
    world.servers[1].requests += 5
    found = target.observe(work, since=mark, as_of=AS_OF + timedelta(seconds=30))
    assert found is not None
    figures = found.versions[1]
    assert (figures.requests, figures.errors, figures.p99_ms, found.seconds) == (15, 3, None, 30.0)
    swap = world.deployment(2, previous=1)
    target.prepare(swap, world.versions[2])
    target.shift(swap, world.versions[2], 1.0)
    found = target.observe(work, since=mark, as_of=AS_OF + timedelta(seconds=60))
    assert found is not None
    assert found.versions == {}
    assert world.backend().observe(work, since=world.backend().mark(work, as_of=AS_OF), as_of=AS_OF) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"urls": []}, "argument.server_url"), ({"urls": "http://one:8080"}, "argument.server_url"),
        ({"urls": ["http://key:secret@one"]}, "argument.server_url"),
        ({"metrics_urls": ["http://one:8082/metrics"]}, "argument.metrics_urls"),
        ({"name": "late/eu"}, "argument.name"), ({"name": " "}, "argument.name"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_work_are_refused(
    lake: Lake, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    values: dict[str, Any] = {"urls": URLS, "repository": tmp_path, **changes}
    with pytest.raises(ArgumentError) as refused:
        V2Backend(lake, None, **values)  # type: ignore[arg-type]
    assert refused.value.code == code
    assert "secret" not in str(refused.value)


def test_a_server_that_answers_callers_with_nothing_has_a_share_of_nothing(make: Make) -> None:
    world = make()
    target, work, model = world.backend(), world.deployment(1), world.versions[1]
    target.prepare(work, model)
    world.servers[1].down = True
    with pytest.raises(UnavailableError):
        target.shift(work, model, 1.0)
    world.servers[1].down = False

    # A rollout that finds the whole share there would leave the second one out.
    assert target.serving("late", "champion") == {1: 0.5}
    target.shift(work, model, 1.0)
    assert target.serving("late", "champion") == {1: 1.0}


def test_another_number_of_the_same_files_is_another_version(world: World) -> None:
    target, one = world.backend(), world.versions[1]
    four = a_model(4, artifact_digest=one.artifact_digest, source_uri=one.source_uri)
    world.lake.evidence.put(four)
    world.versions[4] = four
    work = world.deployment(4, previous=1)
    target.prepare(work, four)
    assert not target.settled(work, four, 1.0).ready
    target.shift(work, four, 1.0)
    assert target.settled(work, four, 1.0).ready
    assert (world.answers(), target.serving("late", "champion")) == ([4, 4], {4: 1.0})

    target.abort(work, four)

    assert (world.answers(), target.serving("late", "champion")) == ([1, 1], {1: 1.0})


@pytest.mark.parametrize("content", [None, "[]", "{"])
def test_settings_that_cannot_be_read_are_not_taken_for_none(
    world: World, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    target.prepare(work, model)
    (file,) = world.folder.glob("*/serving/model-settings.json")
    before, plain = file.read_text(), Path.read_text

    def read(path: Path, *more: Any, **options: Any) -> str:
        if path == file:
            raise OSError(116, "Stale file handle")
        return plain(path, *more, **options)

    with monkeypatch.context() as broken:
        if content is None:
            broken.setattr(Path, "read_text", read)
        else:
            file.write_text(content)
        with pytest.raises((UnavailableError, ConflictError)) as refused:
            target.shift(work, model, 1.0)
    assert refused.value.retryable == (content is None)

    file.write_text(before)
    target.abort(work, model)

    # What answered callers was not taken for nothing, and not taken away.
    assert (world.answers(), file.read_text()) == ([1, 1], before)


def test_a_gateway_that_does_not_reach_its_server_has_not_judged_the_model(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, work, model = world.backend(), world.deployment(2, previous=1), world.versions[2]
    plain = FakeServer.answer

    def answer(self: FakeServer, method: str, path: str, content: Any) -> tuple[int, Any]:
        return (503, None) if path.endswith("/load") else plain(self, method, path, content)

    with monkeypatch.context() as busy:
        busy.setattr(FakeServer, "answer", answer)
        with pytest.raises(UnavailableError):
            target.prepare(work, model)
    target.prepare(work, model)

    assert target.ready(work, model).ready
