"""The rollout over a target that fails to order: whatever fails, the old version serves, and it is recorded.

MLflow and the lake are real; the target is a file (:mod:`tests.unit.serving.targets.folder_target`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import (
    ArgumentError,
    ConflictError,
    RegistryError,
    UnavailableError,
    XOpsError,
)
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Deployment, DeploymentCheck, Outcome, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.rollback import release, rollback
from airflow_provider_xops.serving.targets.base import VersionFigures
from airflow_provider_xops.serving.targets.check import check_deployment
from airflow_provider_xops.serving.targets.health import HealthCondition
from airflow_provider_xops.serving.targets.rollout import (
    ComeBack,
    Patience,
    abort_deployment,
    confirm_decision,
    leave_deployment,
    list_deployments,
)
from tests.integration.rollout_world import World, make_world, shown, utc_now, with_other_inputs
from tests.unit.serving.targets.folder_target import FolderTarget

pytestmark = pytest.mark.server

WHOLE = [
    ("load", "passed", 0.0), ("ready", "passed", 0.0), ("golden", "passed", 0.0), ("decide", "passed", 0.0),
    ("shift", "passed", 0.5), ("health", "passed", 0.5), ("shift", "passed", 1.0), ("health", "passed", 1.0),
    ("confirm", "passed", 1.0), ("finish", "passed", 1.0),
]  # fmt: skip


class Killed(BaseException):
    """As the process being ended."""


class ManualTime:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)

    def clock(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=max(seconds, 0.001))


@pytest.fixture(scope="module")
def trained(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three versions of a model; each test promotes the first under an alias of its own."""
    from airflow_provider_xops.lake.lake import init_lake, open_lake
    from airflow_provider_xops.records import Actor
    from airflow_provider_xops.settings import LakeSettings

    uri = str(tmp_path_factory.mktemp("rollout") / "lake")
    settings = LakeSettings(uri=uri, storage_options={}, credentials=None)
    init_lake(settings, actor=Actor.user("tester", key="init", fence=1), as_of=utc_now())
    lake: Lake = open_lake(settings)
    return make_world(lake, RegistryClient(mlflow_server.settings()), versions=3)


@dataclasses.dataclass
class Case:
    """One alias with its target, and a rollout of version 2 to it."""

    world: World
    alias: str
    path: Path
    time: ManualTime

    def target(self, **changes: Any) -> FolderTarget:
        return FolderTarget(self.path, serves=1, **changes)

    def promote(self, version: int, *, key: str = "") -> Any:
        return self.world.promote(version, alias=self.alias, key=f"{self.alias}/{key or version}")

    def deploy(self, target: FolderTarget, version: int = 2, *, key: str = "deploy", **changes: Any) -> Any:
        values: dict[str, Any] = {
            "alias": self.alias,
            "decide": lambda: self.promote(version, key=key),
            "clock": self.time.clock,
            "wait": self.time.wait,
            "patience": Patience(load_s=60, settle_s=20, requests_s=30, poll_s=5),
        }
        return self.world.deploy(target, version, key=f"{self.alias}/{key}", **(values | changes))

    @property
    def ledger(self) -> list[tuple[str, int | None]]:
        return self.world.outcomes(self.alias)

    @property
    def state(self) -> dict[str, Any]:
        return self.target().state


@pytest.fixture
def case(trained: World, tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    made = Case(trained, f"a{abs(hash(request.node.nodeid)) % 10**8}", tmp_path / "target.json", ManualTime())
    made.promote(1)
    return made


OLD_ALONE = {"loaded": [1], "shares": {"1": 1.0}, "shadows": {}}
NEW_ALONE = {"loaded": [1, 2], "shares": {"2": 1.0}, "shadows": {}}


def test_a_version_is_brought_in_step_by_step(case: Case) -> None:
    deployed = case.deploy(case.target())

    assert shown(deployed) == WHOLE
    assert (deployed.outcome, deployed.state, deployed.message) == (Outcome.PASSED, "in service", "")
    assert deployed.served == {2: 6}
    assert deployed.decision.sequence == 3
    assert deployed.deployment.previous == case.world.versions[0].ref
    assert case.ledger == [("promoted", 1), ("promoted", 2)]
    assert case.state == NEW_ALONE


def test_the_same_work_again_does_nothing(case: Case) -> None:
    first = case.deploy(case.target())
    target = case.target()
    again = case.deploy(target)

    assert again.reused
    assert (again.deployment, again.steps) == (first.deployment, first.steps)
    assert target.calls == []


def test_the_same_work_again_after_a_rollback_does_not_say_that_it_is_in_service(case: Case) -> None:
    case.deploy(case.target())
    rollback(
        case.world.lake, case.world.client, model_name=case.world.name, alias=case.alias,
        reason="callers complain", actor=case.world.actor(f"{case.alias}/by-hand"), as_of=utc_now(),
    )  # fmt: skip

    again = case.deploy(case.target())

    assert (again.outcome, again.reused) == (Outcome.FAILED, False)
    assert "superseded: entry 5 made v1 champion" in again.message
    assert case.ledger == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]
    assert case.state == OLD_ALONE


def raises(method: str, error: Callable[[], BaseException], *, times: int = 99) -> Callable[..., None]:
    """A fault: a method raises so many times. Going back always works."""
    left = [times]

    def fault(name: str, model: Any) -> None:
        if name == method and left[0] > 0:
            left[0] -= 1
            raise error()

    return fault


def refused() -> XOpsError:
    return RegistryError("the target refused", code="registry.refused")


def silent() -> XOpsError:
    return UnavailableError("the target did not answer")


def also(method: str) -> Any:
    """A case of the long version."""
    return pytest.param(method, marks=pytest.mark.soak)


@pytest.mark.parametrize("method", ["prepare", also("ready"), also("ask")])
def test_before_the_decision_a_refusal_leaves_nothing(case: Case, method: str) -> None:
    with pytest.raises(RegistryError):
        case.deploy(case.target(fault=raises(method, refused)))

    assert case.state == OLD_ALONE
    assert case.ledger == [("promoted", 1)]
    (found,) = list_deployments(case.world.lake, model=case.world.name, alias=case.alias)
    assert found.state == "failed"
    assert "the target refused" in found.message


@pytest.mark.parametrize("method", ["shift", also("settled"), also("mark"), also("serving"), "finish"])
def test_after_the_decision_a_refusal_gives_the_old_version_its_requests_back_and_rolls_back(
    case: Case, method: str
) -> None:
    with pytest.raises(RegistryError):
        case.deploy(case.target(fault=raises(method, refused)))

    assert case.state == OLD_ALONE
    assert case.ledger == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]
    assert case.world.client.aliases(case.world.name)[case.alias] == 1
    last = ledger.state(case.world.lake, case.world.name, case.alias).championships[-1]
    assert "deployment" in last.reason
    assert "the target refused" in last.reason


def test_wrong_golden_answers_stop_it_before_the_ledger_knows_of_it(case: Case) -> None:
    deployed = case.deploy(case.target(answer=lambda model: [1 - int(each) for each in model.golden.labels]))

    assert shown(deployed)[2:] == [("golden", "failed", 0.0), ("abort", "failed", 0.0)]
    assert "rows otherwise" in deployed.message
    assert case.ledger == [("promoted", 1)]
    assert case.state == OLD_ALONE


def test_a_model_without_golden_predictions_is_refused_unless_that_was_said(case: Case) -> None:
    adopted = dataclasses.replace(
        case.world.versions[1], golden=None, origin="adopted", artifact_digest="f" * 64, record_id=""
    )
    case.world.lake.evidence.put(adopted)
    refused = case.deploy(case.target(), model=adopted, decide=None, steps=(0.5,))

    assert refused.outcome is Outcome.FAILED
    assert "golden=False" in refused.message
    figures = {2: VersionFigures(requests=50, errors=0, p99_ms=4.0)}
    done = case.deploy(
        case.target(figures=lambda: figures), model=adopted, decide=None, steps=(0.5,), golden=False, key="b"
    )
    assert done.outcome is Outcome.PASSED
    # Without a request and without golden rows nothing would have been measured.
    nothing = case.deploy(
        case.target(), model=adopted, decide=None, steps=(0.6,), golden=False, key="c", supersede=True
    )
    assert "nothing was measured" in nothing.message


def sick() -> dict[int, VersionFigures]:
    return {
        1: VersionFigures(requests=100, errors=0, p99_ms=5.0),
        2: VersionFigures(requests=100, errors=40, p99_ms=5.0),
    }


def test_a_window_with_errors_ends_early_and_undoes_the_decision(case: Case) -> None:
    before = case.time.now
    deployed = case.deploy(case.target(figures=sick), soak_seconds=600)

    assert shown(deployed)[4:] == [
        ("shift", "passed", 0.5),
        ("health", "failed", 0.5),
        ("abort", "failed", 0.0),
    ]
    assert deployed.message == "health: error_rate: 0.4 is above 0.01"
    assert (case.time.now - before).total_seconds() < 60
    assert case.ledger == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]
    assert deployed.steps[-1].details["ledger"] == "rolled back to v1 by entry 5"
    assert case.state == OLD_ALONE
    # Blocked now: the same work begins a new deployment, and the ledger says no.
    again = case.deploy(case.target())
    assert again.outcome is Outcome.FAILED
    assert "superseded" in again.message
    assert case.state == OLD_ALONE


def test_hold_gives_the_requests_back_and_leaves_the_ledger_to_a_person(case: Case) -> None:
    deployed = case.deploy(case.target(figures=sick), on_failure="hold")

    assert case.state == OLD_ALONE
    assert case.ledger == [("promoted", 1), ("promoted", 2)]
    assert deployed.steps[-1].details["ledger"] == "entry 3 stays, as asked"


def test_a_window_waits_for_the_requests_that_are_needed_and_then_no_longer(case: Case) -> None:
    came = iter(range(0, 1000, 7))
    figures = lambda: {2: VersionFigures(requests=next(came), errors=0, p99_ms=1.0)}  # noqa: E731
    deployed = case.deploy(
        case.target(figures=figures), soak_seconds=5.0, steps=(1.0,), health=HealthCondition(min_requests=20)
    )
    health = next(step for step in deployed.steps if step.step == "health")
    assert health.outcome is Outcome.PASSED
    assert health.details["candidate_requests"] >= 20

    few = lambda: {1: VersionFigures(requests=3, errors=0, p99_ms=1.0)}  # noqa: E731
    back = case.deploy(
        case.target(figures=few), 1, steps=(1.0,), health=HealthCondition(min_requests=20), key="back"
    )
    assert "3 came in" in back.message
    assert case.ledger[-1] == ("rolled_back", 2)


def test_a_target_that_does_not_answer_is_waited_for_and_the_next_try_goes_on(case: Case) -> None:
    fault = raises("shift", silent)
    with pytest.raises(UnavailableError):
        case.deploy(case.target(fault=fault))
    assert case.ledger == [("promoted", 1), ("promoted", 2)]
    assert case.state["shares"] == {"1": 1.0}
    (found,) = list_deployments(case.world.lake, model=case.world.name, alias=case.alias)
    assert found.state == "under way"

    target = case.target()
    deployed = case.deploy(target)

    assert shown(deployed) == WHOLE
    assert case.state == NEW_ALONE
    # Found again, put right, and not decided a second time.
    assert len(list_deployments(case.world.lake, model=case.world.name, alias=case.alias)) == 1
    assert case.ledger == [("promoted", 1), ("promoted", 2)]


def test_on_the_last_try_a_target_that_does_not_answer_is_a_failure(case: Case) -> None:
    with pytest.raises(UnavailableError):
        case.deploy(case.target(fault=raises("shift", silent)), last_try=True)

    assert case.state == OLD_ALONE
    assert case.ledger == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]


@pytest.mark.parametrize("method", [also("prepare"), also("ready"), "ask"])
def test_ended_before_the_decision_it_leaves_nothing_and_begins_anew(case: Case, method: str) -> None:
    with pytest.raises(Killed):
        case.deploy(case.target(fault=raises(method, Killed)))
    assert case.state == OLD_ALONE
    assert case.ledger == [("promoted", 1)]

    deployed = case.deploy(case.target())

    assert shown(deployed) == WHOLE
    assert deployed.deployment.key.endswith("#2")
    found = list_deployments(case.world.lake, model=case.world.name, alias=case.alias)
    assert sorted(each.state for each in found) == ["cancelled", "in service"]


@pytest.mark.parametrize("method", ["shift", also("settled"), also("mark"), "observe", also("finish")])
def test_ended_after_the_decision_everything_stays_and_the_next_try_goes_on(case: Case, method: str) -> None:
    with pytest.raises(Killed):
        case.deploy(case.target(fault=raises(method, Killed)))
    assert case.ledger == [("promoted", 1), ("promoted", 2)]
    assert "abort" not in case.target().calls

    deployed = case.deploy(case.target())

    assert shown(deployed) == WHOLE
    assert len(list_deployments(case.world.lake, model=case.world.name, alias=case.alias)) == 1
    assert case.state == NEW_ALONE


def test_cancelled_between_two_looks_it_goes_back(case: Case) -> None:
    looks = iter([False] * 2 + [True] * 99)
    deployed = case.deploy(case.target(), cancelled=lambda: next(looks))

    assert (deployed.outcome, deployed.state) == (Outcome.ERRORED, "cancelled")
    assert case.state == OLD_ALONE


def test_a_target_that_forgot_is_put_right_by_the_next_try(case: Case) -> None:
    with pytest.raises(Killed):
        case.deploy(case.target(fault=raises("observe", Killed)))
    # The target was started anew from its beginnings meanwhile.
    case.path.unlink()
    assert case.target().state == OLD_ALONE

    target = case.target()
    assert shown(case.deploy(target)) == WHOLE
    assert target.calls[:2] == ["prepare", "ready"]
    assert case.state == NEW_ALONE


def test_two_deployments_of_one_alias_at_one_place_do_not_mix(case: Case) -> None:
    with pytest.raises(Killed):
        case.deploy(case.target(fault=raises("observe", Killed)), decide=None, steps=(0.5,), key="canary")
    # Killed after nothing was decided: it was aborted. One that was killed outright is still under way:
    with pytest.raises(UnavailableError):
        case.deploy(case.target(fault=raises("shift", silent)), decide=None, steps=(0.5,), key="killed")

    with pytest.raises(ConflictError) as raised:
        case.deploy(case.target(), 3)
    assert raised.value.code == "conflict.deployment"
    assert case.ledger == [("promoted", 1)]

    deployed = case.deploy(case.target(), 3, supersede=True)

    assert deployed.state == "in service"
    assert case.state == {"loaded": [1, 3], "shares": {"3": 1.0}, "shadows": {}}
    states = {
        each.deployment.key.rpartition("/")[2]: each.state
        for each in list_deployments(case.world.lake, model=case.world.name, alias=case.alias)
    }
    assert states == {"canary": "cancelled", "killed": "failed", "deploy": "in service"}
    # The superseded work finds itself ended, and a new attempt begins from the new champion.
    with pytest.raises(ArgumentError):
        case.deploy(case.target(), decide=None, steps=(1.0,), key="killed")


def test_a_deployment_whose_version_is_champion_already_is_not_superseded(case: Case) -> None:
    with pytest.raises(UnavailableError):
        case.deploy(case.target(fault=raises("shift", silent)))

    with pytest.raises(ConflictError):
        case.deploy(case.target(), 3, supersede=True, key="other")

    assert case.ledger == [("promoted", 1), ("promoted", 2)]


def test_killed_right_after_the_entry_it_is_not_superseded(case: Case) -> None:
    def decide() -> Any:
        case.promote(2, key="deploy")
        raise Killed

    with pytest.raises(Killed):
        case.deploy(case.target(), decide=decide)

    with pytest.raises(ConflictError):
        case.deploy(case.target(), 3, supersede=True, key="other")
    assert shown(case.deploy(case.target())) == WHOLE
    assert case.ledger == [("promoted", 1), ("promoted", 2)]


def test_killed_before_its_second_look_it_looks_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two begin at one moment; one is killed before it saw the other, which goes on alone."""
    from airflow_provider_xops.serving.targets import rollout

    looks = iter([[]])

    def killed_at_the_second(*_: Any) -> Any:
        for look in looks:
            return look
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(rollout, "_others", killed_at_the_second)
        with pytest.raises(Killed):
            case.deploy(case.target(), key="killed")
        patched.setattr(rollout, "_others", lambda *_: [])
        with pytest.raises(UnavailableError):
            case.deploy(case.target(fault=raises("prepare", silent)), 3, key="other")

    target = case.target()
    with pytest.raises(ConflictError):
        case.deploy(target, key="killed")
    assert target.calls == []


def test_a_former_champion_that_is_refused_meanwhile_leaves_the_entry_to_a_person(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_xops.serving.targets import _ledger_side

    def blocked(*_: Any, **__: Any) -> Any:
        raise RegistryError("v1 is blocked", code="registry.blocked")

    monkeypatch.setattr(_ledger_side, "rollback", blocked)
    deployed = case.deploy(case.target(figures=sick))

    assert deployed.state == "failed"
    assert deployed.steps[-1].details["ledger"] == (
        "entry 3 stays, the former champion was refused (registry.blocked)"
    )
    assert case.state == OLD_ALONE


def test_a_person_ends_a_deployment_that_nobody_goes_on_with(case: Case) -> None:
    with pytest.raises(UnavailableError):
        case.deploy(case.target(fault=raises("shift", silent)))
    (left,) = list_deployments(case.world.lake, model=case.world.name, alias=case.alias)
    world = case.world

    aborted = abort_deployment(
        world.lake, world.client, case.target(), left.deployment, reason="nobody is here",
        actor=world.actor("abort"), clock=utc_now,
    )  # fmt: skip

    assert (aborted.state, aborted.message) == ("failed", "nobody is here")
    assert case.state == OLD_ALONE
    assert case.ledger == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]


def test_what_the_ledger_says_meanwhile_wins(case: Case) -> None:
    """Somebody rolls back by hand in the middle: the rollout ends there, and does not roll back once more."""

    def by_hand(name: str, model: Any) -> None:
        if name == "observe" and case.ledger[-1] == ("promoted", 2):
            rollback(
                case.world.lake, case.world.client, model_name=case.world.name, alias=case.alias,
                reason="callers complain", actor=case.world.actor(f"{case.alias}/by-hand"), as_of=utc_now(),
            )  # fmt: skip

    deployed = case.deploy(case.target(fault=by_hand))

    assert deployed.outcome is Outcome.FAILED
    assert "superseded: entry 5 made v1 champion" in deployed.message
    assert case.ledger == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]
    assert case.state == OLD_ALONE


def test_a_held_decision_deploys_nothing(case: Case) -> None:
    held = case.deploy(case.target(), decide=lambda: promote_stale(case))

    assert shown(held)[3:] == [("decide", "failed", 0.0), ("abort", "failed", 0.0)]
    assert held.message.startswith("decide: held: superseded")
    assert held.decision.outcome is PromotionOutcome.HELD
    assert case.state == OLD_ALONE


def promote_stale(case: Case) -> Any:
    """A promotion of version 2 whose evaluation was against no champion at all."""
    from airflow_provider_xops.registry.promote import promote
    from tests.unit.registry.builders import a_recorded_evaluation

    model = case.world.versions[1]
    return promote(
        case.world.lake, case.world.client, model=model, alias=case.alias, expected=None,
        evaluation=a_recorded_evaluation(case.world.lake, model), actor=case.world.actor(f"{case.alias}/s"),
        as_of=utc_now(),
    ).decision  # fmt: skip


def test_a_version_that_the_ledger_has_decided_for_is_brought_to_a_target(case: Case) -> None:
    decision = case.promote(2)
    world = case.world

    def decide() -> Any:
        return confirm_decision(
            world.lake, world.client, decision, actor=world.actor("confirm"), as_of=utc_now()
        )

    deployed = case.deploy(case.target(), decide=decide)

    assert shown(deployed) == WHOLE
    assert deployed.decision == decision
    assert deployed.deployment.previous == world.versions[0].ref
    assert case.ledger == [("promoted", 1), ("promoted", 2)]
    forged = dataclasses.replace(decision, reason="another", entry_hash="0" * 64, record_id="")
    with pytest.raises(ArgumentError) as raised:
        confirm_decision(world.lake, world.client, forged, actor=world.actor("x"), as_of=utc_now())
    assert raised.value.code == "argument.decision"


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_trying_out_leaves_the_ledger_alone_and_is_ended_by_a_person(case: Case, role: str) -> None:
    world = case.world
    deployed = case.deploy(case.target(), decide=None, steps=(0.1, 0.3), role=role)

    assert [step for step, _, _ in shown(deployed)] == [
        "load", "ready", "golden", "shift", "health", "shift", "health", "confirm", "finish",
    ]  # fmt: skip
    assert deployed.state == "tried out"
    where = {"canary": "shares", "shadow": "shadows"}[role]
    assert case.state[where]["2"] == 0.3
    assert case.ledger == [("promoted", 1)]

    ended = abort_deployment(
        world.lake, world.client, case.target(), deployed.deployment, reason="seen enough",
        actor=world.actor("end"), clock=utc_now,
    )  # fmt: skip
    assert ended.state == "ended"
    assert case.state == OLD_ALONE


def test_the_first_version_of_an_alias_has_nothing_to_go_back_to(trained: World, tmp_path: Path) -> None:
    case = Case(trained, f"first{utc_now():%f}", tmp_path / "first.json", ManualTime())
    target = FolderTarget(case.path)
    deployed = case.deploy(target, 1, steps=(1.0,))
    assert deployed.state == "in service"
    assert deployed.deployment.previous is None

    other = Case(trained, f"second{utc_now():%f}", tmp_path / "second.json", ManualTime())
    empty = FolderTarget(other.path, figures=lambda: {1: VersionFigures(requests=9, errors=9)})
    failed = other.deploy(empty, 1, steps=(1.0,))
    assert failed.steps[-1].details["ledger"] == "entry 1 stays, there is no former champion to go back to"
    assert other.ledger == [("promoted", 1)]


MEANINGLESS: list[tuple[dict[str, Any], str]] = [
    ({"steps": ()}, "argument.steps"),
    ({"steps": (0.5, 0.1, 1.0)}, "argument.steps"),
    ({"steps": (0.0, 1.0)}, "argument.steps"),
    ({"steps": (0.5,)}, "argument.steps"),
    ({"steps": (1.0,), "decide": None}, "argument.steps"),
    ({"role": "shadow"}, "argument.steps"),
    ({"on_failure": "panic"}, "argument.on_failure"),
    ({"steps": (1.0,), "health": HealthCondition(max_p99_ratio=2.0)}, "argument.health"),
    ({"steps": (float("nan"), 1.0)}, "argument.steps"),
    ({"soak_seconds": float("nan")}, "argument.seconds"),
    ({"soak_seconds": -1.0}, "argument.seconds"),
    ({"soak_seconds": 1e12}, "argument.seconds"),
    ({"version": 1, "decide": None, "steps": (1.0,), "role": "shadow"}, "argument.try_out"),
]


def test_what_cannot_be_meant_is_refused_before_anything_is_done(case: Case) -> None:
    target = case.target()
    for changes, code in MEANINGLESS:
        with pytest.raises(ArgumentError) as raised:
            case.deploy(target, **changes)
        assert raised.value.code == code
    with pytest.raises(ArgumentError):
        check(case, target, seconds=float("nan"))

    assert target.calls == []
    assert list_deployments(case.world.lake, model=case.world.name, alias=case.alias) == []


def test_a_version_with_other_inputs_is_refused_unless_that_was_said(case: Case) -> None:
    # Its own golden rows are answered rightly; it is the callers' requests that it would refuse.
    narrow = with_other_inputs(case.world)
    target = case.target()

    with pytest.raises(ArgumentError, match="does not take y") as raised:
        case.deploy(target, model=narrow)

    assert raised.value.code == "argument.inputs_changed"
    assert target.calls == []
    tried = case.deploy(target, model=narrow, decide=None, steps=(0.1,), allow_new_inputs=True)
    assert tried.outcome is Outcome.PASSED


def come_back(
    case: Case, work: Callable[..., Any], meanwhile: Callable[[int], None] = lambda times: None
) -> tuple[Any, list[float]]:
    """Do some work that is elsewhere while it waits; gives its end, and the seconds that each stay waited.

    :param meanwhile: what others do while it is away for the n-th time.
    """
    stays: list[float] = []
    memory: dict[str, Any] | None = None
    while True:
        begun = case.time.now
        try:
            done = work(away_s=30.0, memory=memory)
        except ComeBack as later:
            left = later
        else:
            return done, [*stays, (case.time.now - begun).total_seconds()]
        stays.append((case.time.now - begun).total_seconds())
        assert left.at >= case.time.now + timedelta(seconds=10)
        # Another process goes on: it has the memory, and nothing else.
        memory = json.loads(json.dumps(left.memory))
        meanwhile(len(stays))
        case.time.now = left.at


def test_windows_are_waited_for_elsewhere_and_end_when_they_would_have(case: Case) -> None:
    begun = case.time.now
    targets: list[FolderTarget] = []

    def work(**more: Any) -> Any:
        targets.append(case.target())
        return case.deploy(targets[-1], soak_seconds=100, **more)

    deployed, stays = come_back(case, work)

    assert shown(deployed) == WHOLE
    assert case.ledger == [("promoted", 1), ("promoted", 2)]
    # Of each wait the first seconds are here; who comes back to one leaves at once if it is not over.
    assert len(stays) == 7
    assert max(stays) <= 10
    assert (case.time.now - begun).total_seconds() == 200
    seconds = [step.details["seconds"] for step in deployed.steps if step.step == "health"]
    assert seconds == [100, 100]
    # One window, one mark; and who comes back as told puts nothing right.
    assert sum(target.calls.count("mark") for target in targets) == 2
    assert sum(target.calls.count("prepare") for target in targets) == 1


def test_a_window_that_goes_wrong_while_nobody_looks_is_undone_at_the_next_look(case: Case) -> None:
    begun, ill = case.time.now, {2: VersionFigures(requests=100, errors=40)}

    def figures() -> dict[int, VersionFigures]:
        return ill if (case.time.now - begun).total_seconds() > 60 else {}

    deployed, stays = come_back(
        case, lambda **more: case.deploy(case.target(figures=figures), soak_seconds=600, **more)
    )

    assert deployed.message == "health: error_rate: 0.4 is above 0.01"
    assert (case.time.now - begun).total_seconds() <= 90
    assert len(stays) == 3
    assert case.ledger == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]
    assert case.state == OLD_ALONE


def test_patience_is_the_same_elsewhere(case: Case) -> None:
    class Slow(FolderTarget):
        def ready(self, deployment: Any, model: Any) -> Any:
            return dataclasses.replace(super().ready(deployment, model), ready=False)

    begun = case.time.now
    deployed, stays = come_back(case, lambda **more: case.deploy(Slow(case.path, serves=1), **more))

    assert deployed.message == "ready: not loaded"
    assert (case.time.now - begun).total_seconds() == 60
    assert len(stays) > 1
    assert case.state == OLD_ALONE


def test_a_target_that_is_silent_for_long_is_waited_for_elsewhere_too(case: Case) -> None:
    faults = iter([silent] * 4)

    def fault(name: str, model: Any) -> None:
        if name == "shift" and (error := next(faults, None)) is not None:
            raise error()

    deployed, stays = come_back(
        case,
        lambda **more: case.deploy(
            case.target(fault=fault), patience=Patience(settle_s=120, poll_s=5), **more
        ),
    )

    assert shown(deployed) == WHOLE
    assert len(stays) == 3


@pytest.mark.parametrize("what", ["aborted", "rolled back", "target forgot"])
def test_what_others_do_meanwhile_counts(case: Case, what: str) -> None:
    world = case.world

    def meanwhile(times: int) -> None:
        if times > 1:
            return
        if what == "aborted":
            (open_one,) = list_deployments(world.lake, model=world.name, alias=case.alias)
            abort_deployment(
                world.lake, world.client, case.target(), open_one.deployment, reason="not today",
                actor=world.actor("person"), clock=case.time.clock, wait=case.time.wait,
            )  # fmt: skip
        elif what == "rolled back":
            rollback(
                world.lake, world.client, model_name=world.name, alias=case.alias, reason="people complain",
                actor=world.actor(f"{case.alias}/person"), as_of=utc_now(),
            )  # fmt: skip
        else:
            case.path.unlink()

    deployed, _ = come_back(
        case, lambda **more: case.deploy(case.target(), soak_seconds=100, **more), meanwhile
    )

    # No second deployment begins because the first one was ended.
    assert len(list_deployments(world.lake, model=world.name, alias=case.alias)) == 1
    assert deployed.outcome is Outcome.FAILED
    assert case.ledger == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]
    assert case.state == OLD_ALONE
    said = {"aborted": "not today", "rolled back": "superseded", "target forgot": "health"}[what]
    assert said in deployed.message


def test_killed_and_then_waiting_elsewhere_it_puts_the_target_right_first(case: Case) -> None:
    with pytest.raises(Killed):
        case.deploy(case.target(fault=raises("observe", Killed)))
    case.path.unlink()
    faults = iter([silent] * 4)
    targets: list[FolderTarget] = []

    def fault(name: str, model: Any) -> None:
        if name == "prepare" and (error := next(faults, None)) is not None:
            raise error()

    def work(**more: Any) -> Any:
        targets.append(case.target(fault=fault))
        return case.deploy(targets[-1], patience=Patience(settle_s=120, poll_s=5), **more)

    deployed, stays = come_back(case, work)

    assert shown(deployed) == WHOLE
    assert len(stays) == 3
    assert [target.calls[0] for target in targets] == ["prepare"] * 3
    assert case.state == NEW_ALONE


def test_a_window_of_a_mark_that_cannot_be_carried_is_waited_for_here(case: Case) -> None:
    class Own(FolderTarget):
        def mark(self, deployment: Any, *, as_of: datetime) -> Any:
            return as_of

        def observe(self, deployment: Any, *, since: Any, as_of: datetime) -> Any:
            return super().observe(deployment, since=since.isoformat(), as_of=as_of)

    deployed, stays = come_back(
        case, lambda **more: case.deploy(Own(case.path, serves=1), soak_seconds=100, **more)
    )

    assert shown(deployed) == WHOLE
    assert stays == [200]


@pytest.mark.parametrize("decides", [True, False], ids=["after the entry", "a try-out"])
def test_left_while_it_waits_elsewhere_it_ends_as_in_a_worker(case: Case, decides: bool) -> None:
    world = case.world
    changes: dict[str, Any] = {} if decides else {"decide": None, "steps": (0.5,)}
    with pytest.raises(ComeBack) as away:
        case.deploy(case.target(), soak_seconds=100, away_s=30.0, **changes)
    assert case.state["shares"] == {"1": 0.5, "2": 0.5}
    deployment = world.lake.evidence.get("deployments", away.value.memory["deployment"])
    assert isinstance(deployment, Deployment)

    def leave() -> Any:
        return leave_deployment(
            world.lake, world.client, case.target(), deployment, why="the task was ended",
            actor=world.actor("left"), clock=case.time.clock,
        )  # fmt: skip

    left = leave()

    if not decides:
        assert (left.state, left.message) == ("cancelled", "the task was ended")
        assert case.state == OLD_ALONE
        assert leave() == left
        return
    # The ledger names it: it stays as it is, and the same work goes on.
    assert left.state == "under way"
    assert case.state["shares"] == {"1": 0.5, "2": 0.5}
    assert shown(case.deploy(case.target())) == WHOLE
    assert leave().state == "in service"


def check(case: Case, target: FolderTarget, **changes: Any) -> DeploymentCheck:
    values: dict[str, Any] = {
        "model_name": case.world.name, "alias": case.alias, "seconds": 30.0, "clock": case.time.clock,
        "wait": case.time.wait, "actor": case.world.actor("check"),
        "patience": Patience(load_s=60, settle_s=20, requests_s=30, poll_s=5),
    }  # fmt: skip
    return check_deployment(case.world.lake, target, **(values | changes))


def gates_of(found: DeploymentCheck) -> dict[str, str]:
    return {gate.gate: gate.outcome.value for gate in found.results}


def test_a_check_finds_a_version_that_is_well(case: Case) -> None:
    figures = {1: VersionFigures(requests=500, errors=1, p99_ms=3.0)}
    found = check(
        case,
        case.target(figures=lambda: figures),
        health=HealthCondition(max_p99_ms=10, min_requests=100),
        deployment="d" * 32,
    )

    assert found.outcome is Outcome.PASSED
    assert gates_of(found) == dict.fromkeys(
        ["served_version", "golden_predictions", "requests", "error_rate", "p99_ms"], "passed"
    )
    assert (found.decision, found.served, found.deployment) == (1, {"1": 2}, "d" * 32)
    assert case.world.lake.evidence.get(DeploymentCheck.kind, found.record_id) == found


def test_a_check_tells_failed_from_errored_from_no_data(case: Case) -> None:
    other = case.target()
    other._write({"loaded": [1, 2], "shares": {"2": 1.0}, "shadows": {}})
    assert check(case, other).outcome is Outcome.FAILED
    assert gates_of(check(case, other))["served_version"] == "failed"
    other._write(OLD_ALONE)

    bad = {1: VersionFigures(requests=100, errors=50)}
    assert check(case, case.target(figures=lambda: bad)).outcome is Outcome.FAILED
    assert check(case, case.target(fault=raises("ask", silent))).outcome is Outcome.ERRORED
    assert check(case, case.target(fault=raises("observe", silent))).outcome is Outcome.ERRORED
    nothing = check(case, case.target(), health=HealthCondition(golden=False))
    assert nothing.outcome is Outcome.NO_DATA
    needed = check(case, case.target(), health=HealthCondition(golden=False, min_requests=5))
    assert needed.outcome is Outcome.FAILED


def test_a_failed_check_is_undone_once_and_not_after_a_newer_promotion(case: Case) -> None:
    case.deploy(case.target())
    bad = {2: VersionFigures(requests=100, errors=50)}
    found = check(case, case.target(figures=lambda: bad))
    assert (found.outcome, found.decision) == (Outcome.FAILED, 3)

    def undo() -> Any:
        return rollback(
            case.world.lake, case.world.client, model_name=case.world.name, alias=case.alias,
            reason="the check failed", expected_sequence=found.decision, evidence=(found.record_id,),
            actor=case.world.actor(f"{case.alias}/undo"), as_of=utc_now(),
        )  # fmt: skip

    assert undo().to_version == 1
    release(
        case.world.lake, model_name=case.world.name, version=2, alias=case.alias, reason="mended",
        actor=case.world.actor("release"), as_of=utc_now(),
    )  # fmt: skip
    case.promote(3, key="newer")
    with pytest.raises(RegistryError):
        rollback(
            case.world.lake, case.world.client, model_name=case.world.name, alias=case.alias,
            reason="late", expected_sequence=found.decision, actor=case.world.actor(f"{case.alias}/late"),
            as_of=utc_now(),
        )  # fmt: skip
    assert case.ledger[-1] == ("promoted", 3)


def test_a_check_that_waits_elsewhere_is_about_the_version_it_began_with(case: Case) -> None:
    figures = {1: VersionFigures(requests=500, errors=1, p99_ms=3.0)}

    def meanwhile(times: int) -> None:
        if times == 2:
            case.promote(2)

    begun = case.time.now
    found, stays = come_back(
        case, lambda **more: check(case, case.target(figures=lambda: figures), seconds=100, **more), meanwhile
    )

    assert (found.outcome, found.decision, found.model.version) == (Outcome.PASSED, 1, 1)
    assert (len(stays), (case.time.now - begun).total_seconds()) == (4, 100)
