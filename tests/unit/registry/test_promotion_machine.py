"""Any order of promotions, rollbacks, nominations, hands and kills: reconciling ends with ledger = alias.

Unless a hand moved the alias: then it stays where the hand put it, and is reported.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.records import PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.nominate import nominate, retire
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.registry.reconcile import reconcile
from airflow_provider_xops.registry.rollback import release, rollback
from airflow_provider_xops.settings import LakeSettings
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models

VERSIONS = 3
CHAMPION, SHADOW = "champion", "shadow"
versions = st.integers(1, VERSIONS)
# How many outward steps an attempt does before it is killed; a promotion has four.
lives = st.integers(0, 5)


class Killed(BaseException):
    """The attempt ends here, as by SIGKILL."""


class MortalRegistry(FakeRegistry):
    """Kills its user right after a number of writes: to MLflow, as to the ledger."""

    def __init__(self) -> None:
        super().__init__(VERSIONS)
        self.left: int | None = None

    def step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    def set_registered_model_alias(self, *args: Any) -> None:
        super().set_registered_model_alias(*args)
        self.step()

    def delete_registered_model_alias(self, *args: Any) -> None:
        super().delete_registered_model_alias(*args)
        self.step()

    def set_model_version_tag(self, *args: Any) -> None:
        super().set_model_version_tag(*args)
        self.step()


class PromotionMachine(RuleBasedStateMachine):
    """One model, two aliases, and everything that can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.works = 0
        self.hours = 0
        self.unsettled = False
        self.by_hand: dict[str, int] = {}
        self.original = ledger._commit

    @initialize()
    def make(self) -> None:
        where = LakeSettings(str(self.folder / "lake"))
        init_lake(where, actor=an_actor("init"), as_of=AS_OF)
        self.lake: Any = open_lake(where)
        self.registry: Any = MortalRegistry()
        self.models = recorded_models(self.lake, VERSIONS)

        def commit(*args: Any) -> bool:
            done = self.original(*args)
            self.registry.step()
            return done

        ledger._commit = commit

    def attempt(self, work: Any, life: int | None) -> None:
        """Do it; or be killed over it, and perhaps leave something unfinished."""
        self.registry.left = life
        try:
            work()
        except Killed:
            self.unsettled = True
        except XOpsError:
            pass  # refused: nothing to roll back to, a gated alias, blocked
        finally:
            self.registry.left = None
            self.registry.before_alias = lambda _version: None

    def promote_one(self, version: int, key: str) -> Any:
        now = ledger.state(self.lake, "late", CHAMPION)
        champion = next((each for each in self.models if each.version == now.current_version), None)
        model = self.models[version - 1]
        return promote(
            self.lake, self.registry, model=model, expected=champion.version if champion else None,
            evaluation=a_recorded_evaluation(self.lake, model, champion), actor=an_actor(key), as_of=AS_OF,
        )  # fmt: skip

    def key(self) -> str:
        self.works += 1
        return f"work {self.works}"

    @rule(version=versions, life=st.none() | lives)
    def promotes(self, version: int, life: int | None) -> None:
        key = self.key()
        self.attempt(lambda: self.promote_one(version, key), life)

    @rule(version=versions, life=lives)
    def is_killed_and_runs_again(self, version: int, life: int) -> None:
        key = self.key()
        for given in (life, None):
            self.attempt(lambda: self.promote_one(version, key), given)

    @rule(slow=versions, fast=versions, life=st.none() | lives)
    def is_overtaken_before_it_sets_the_alias(self, slow: int, fast: int, life: int | None) -> None:
        """Another decides and applies while our write is on its way; then we may be killed."""
        mine, theirs = self.key(), self.key()

        def others(_version: int) -> None:
            self.registry.before_alias = lambda _version: None
            left, self.registry.left = self.registry.left, None
            self.promote_one(fast, theirs)
            self.registry.left = left

        self.registry.before_alias = others
        self.attempt(lambda: self.promote_one(slow, mine), life)

    @rule(life=st.none() | lives, version=st.none() | versions)
    def rolls_back(self, life: int | None, version: int | None) -> None:
        key = self.key()

        def work() -> None:
            result = rollback(
                self.lake, self.registry, model_name="late", to_version=version, reason="r", verify=False,
                actor=an_actor(key), as_of=AS_OF,
            )  # fmt: skip
            assert result.decision is not None
            self.by_hand.pop(CHAMPION, None)

        self.attempt(work, life)

    @rule(version=versions)
    def is_released(self, version: int) -> None:
        self.attempt(
            lambda: release(
                self.lake,
                model_name="late",
                version=version,
                reason="r",
                actor=an_actor(self.key()),
                as_of=AS_OF,
            ),
            None,
        )

    @rule(version=versions, life=st.none() | lives)
    def is_nominated(self, version: int, life: int | None) -> None:
        key = self.key()
        self.attempt(
            lambda: nominate(
                self.lake, self.registry, model=self.models[version - 1], alias=SHADOW, reason="r",
                actor=an_actor(key), as_of=AS_OF,
            ),
            life,
        )  # fmt: skip

    @rule(life=st.none() | lives)
    def is_retired(self, life: int | None) -> None:
        key = self.key()

        def work() -> None:
            retire(
                self.lake, self.registry, model_name="late", alias=SHADOW, reason="r", actor=an_actor(key),
                as_of=AS_OF,
            )  # fmt: skip
            self.by_hand.pop(SHADOW, None)

        self.attempt(work, life)

    @precondition(lambda self: not self.unsettled)
    @rule(alias=st.sampled_from([CHAMPION, SHADOW]), version=versions)
    def is_moved_by_hand(self, alias: str, version: int) -> None:
        self.registry.pointed[alias] = version
        self.by_hand[alias] = version

    @rule()
    def reconciles(self) -> None:
        moved = {} if self.unsettled else dict(self.by_hand)
        before = dict(self.registry.pointed)
        for _ in range(2):  # what was killed is mended, and an hour later nobody is taken for it any more
            self.hours += 2
            as_of = AS_OF + timedelta(hours=self.hours)
            made = reconcile(
                self.lake, self.registry, model_name="late", actor=an_actor(self.key()), as_of=as_of
            )
        found = {each.alias: each for each in made}
        self.unsettled = False
        for alias, hand in moved.items():
            decided = ledger.state(self.lake, "late", alias).current_version
            if before.get(alias) == hand != decided:
                assert self.registry.pointed.get(alias) == hand, f"{alias} was moved back without a word"
        for alias in (CHAMPION, SHADOW):
            now = ledger.state(self.lake, "late", alias)
            target, hand = self.registry.pointed.get(alias), self.by_hand.get(alias)
            assert now.unapplied is None
            if target == now.current_version:
                assert alias not in found or str(found[alias].status) in (
                    "consistent",
                    "applied",
                    "no_champion",
                )
                continue
            assert hand == target, f"{alias} is v{target}, decided is v{now.current_version}: {found[alias]}"
            assert str(found[alias].status) in ("ledger_mismatch", "unknown_alias")
            assert found[alias].incident is not None

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "lake"):
            return
        assert ledger.verify_chain(self.lake, "late") == []
        for alias in (CHAMPION, SHADOW):
            entries = ledger.entries(self.lake, "late", alias)
            assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
            applied = Counter(e.decides for e in entries if e.outcome is PromotionOutcome.APPLIED)
            assert set(applied.values()) <= {1}
        keys = Counter(
            (entry.idempotency_key, entry.alias)
            for entry in ledger.entries(self.lake, "late")
            if entry.outcome not in (PromotionOutcome.APPLIED, PromotionOutcome.HELD)
        )
        assert set(keys.values()) <= {1}, "a piece of work has decided twice"

    def teardown(self) -> None:
        ledger._commit = self.original
        shutil.rmtree(self.folder, ignore_errors=True)


PromotionMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)
TestPromotionMachine = PromotionMachine.TestCase
