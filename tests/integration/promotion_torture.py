"""Long-lived promoters that are killed at random instants, and what must be true of the ledger afterwards.

For ``test_promotion_torture.py``. A promoter is a process that promotes what it is told to. It is killed by
SIGKILL at any moment (between two lines of Python, in the middle of a request, of a commit or of its answer)
and started again; the work that it was killed over is run again later, with the same key, beside the next
round's.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from airflow_provider_xops.lake.lake import Lake, open_lake
from airflow_provider_xops.records import ModelVersion, PromotionDecision, PromotionOutcome, record_from_json
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.registry.reconcile import reconcile
from airflow_provider_xops.settings import LakeSettings, MlflowSettings
from tests.integration.registry_steps import bare_version, fresh_name
from tests.processes import CONTEXT
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor

ROUND_LIMIT_S = 300.0
# A request that a killed process has sent may still be on its way.
SETTLE_S = 0.25


@dataclass(frozen=True)
class Work:
    """One promotion: who is to be champion, and who was when it was decided."""

    key: str
    model: ModelVersion
    champion: ModelVersion | None


def promoter(pipe: Connection, url: str, where: LakeSettings) -> None:
    """A process that lives as long as nobody kills it."""
    client = RegistryClient(MlflowSettings(url, timeout_s=120, max_retries=3))
    lake = open_lake(where)
    pipe.send("ready")
    fence = time.time_ns() // 1000
    while (order := pipe.recv()) is not None:
        start_at, works = order
        prepared = [(work, a_recorded_evaluation(lake, work.model, work.champion)) for work in works]
        time.sleep(max(0.0, start_at - time.monotonic()))
        for work, evaluation in prepared:
            result = promote(
                lake,
                client,
                model=work.model,
                expected=work.champion.version if work.champion else None,
                evaluation=evaluation,
                actor=an_actor(work.key, fence=fence),
                as_of=AS_OF,
            )
            pipe.send((work.key, result.decision.to_json(), result.reused))
        pipe.send("done")


@dataclass(eq=False)
class Slot:
    """A place for one promoter after the other, and the works that it owes."""

    process: Any = None
    pipe: Connection | None = None
    owed: dict[str, Work] = field(default_factory=dict)
    busy: bool = False
    doomed: bool = False


@dataclass
class Figures:
    """What a torture came to."""

    seed: int
    rounds: int = 0
    works: int = 0
    kills: int = 0
    run_again: int = 0
    found_again: int = 0
    left_unapplied: int = 0
    reconciled: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    entries: int = 0
    seconds: float = 0.0


class Torture:
    """Rounds of promotion under fire, on one lake and one MLflow server.

    :param promoters: how many processes. :param kills: how many of them are killed in a round, at most.
    """

    def __init__(self, lake: Lake, mlflow: Any, *, promoters: int, kills: int, seed: int) -> None:
        self.lake, self.client = lake, RegistryClient(mlflow.settings(timeout_s=120, max_retries=3))
        self.url, self.kills, self.rng = mlflow.url, kills, random.Random(seed)
        self.slots = [Slot() for _ in range(promoters)]
        self.name = fresh_name("torture")
        self.versions = [bare_version(self.client, lake, self.name) for _ in range(promoters + 1)]
        self.reported: dict[str, list[PromotionDecision]] = defaultdict(list)
        self.works: dict[str, Work] = {}
        self.durations = [1.0]
        self.figures = Figures(seed)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """All promoters started; at the end every one has ended."""
        try:
            self._restart()
            yield
        finally:
            for slot in self.slots:
                if slot.pipe is not None:
                    with contextlib.suppress(OSError):
                        slot.pipe.send(None)
            for slot in self.slots:
                if slot.process is not None:
                    slot.process.join(20)
                    if slot.process.is_alive():
                        slot.process.kill()
                        slot.process.join()

    def play(self, rounds: int) -> Figures:
        """Rounds with kills, each on the champion that the ones before have made; then the debts."""
        began = time.monotonic()
        for number in range(1, rounds + 1):
            champion = self._champion()
            candidates = [each for each in self.versions if each != champion]
            for slot, model in zip(self.slots, candidates, strict=False):
                work = Work(f"round {number}, v{model.version}", model, champion)
                self.works[work.key] = slot.owed[work.key] = work
            self._round(self.kills)
            self._between(number)
            if number % 10 == 0:
                took = time.monotonic() - began
                print(f"{number} rounds in {took:.0f} s, {self.figures.kills} kills", flush=True)
        while any(slot.owed for slot in self.slots):
            self._round(0)
        self.figures.rounds, self.figures.works = rounds, len(self.works)
        self.figures.seconds = round(time.monotonic() - began, 1)
        return self.figures

    def _round(self, kills: int) -> None:
        """Everybody starts at one moment; some are killed at random moments until all have ended."""
        self._restart()
        start = time.monotonic() + 0.1
        for slot in self.slots:
            if slot.owed:
                assert slot.pipe is not None
                slot.pipe.send((start, list(slot.owed.values())))
                slot.busy = True
        victims = self.rng.sample([slot for slot in self.slots if slot.busy], min(kills, len(self.slots)))
        typical = statistics.median(self.durations[-7:])
        fates = sorted(
            ((start + self.rng.uniform(-0.1, typical), slot) for slot in victims), key=lambda f: f[0]
        )
        while any(slot.busy for slot in self.slots):
            assert time.monotonic() < start + ROUND_LIMIT_S, "the round did not end"
            pause = fates[0][0] - time.monotonic() if fates else 1.0
            for pipe in wait(
                [s.pipe for s in self.slots if s.busy and s.pipe], timeout=max(0.0, min(pause, 1.0))
            ):
                self._hear(next(slot for slot in self.slots if slot.pipe is pipe))
            while fates and fates[0][0] <= time.monotonic():
                _, victim = fates.pop(0)
                # Whoever is through already is spared; somebody who is not dies in their place.
                fated = {victim, *(slot for _, slot in fates)}
                busy = [each for each in self.slots if each.busy and not each.doomed and each not in fated]
                if not victim.busy and busy:
                    victim = self.rng.choice(busy)
                if victim.busy and not victim.doomed:
                    victim.doomed = True
                    os.kill(victim.process.pid, signal.SIGKILL)
        self.durations.append(time.monotonic() - start)

    def _hear(self, slot: Slot) -> None:
        """What a promoter says; nothing more is what a killed one says."""
        assert slot.pipe is not None
        try:
            said = slot.pipe.recv()
        except (EOFError, OSError):
            slot.process.join(20)
            assert slot.process.exitcode == -signal.SIGKILL, f"a promoter ended with {slot.process.exitcode}"
            self.figures.kills += 1
            self.figures.run_again += len(slot.owed)
            slot.pipe.close()
            slot.pipe = slot.process = None
            slot.busy = slot.doomed = False
            return
        if said == "done":
            # Who was through when the kill came is dead all the same: the end of its pipe is still to come.
            slot.busy = slot.doomed
            return
        key, decision, reused = said
        found = record_from_json(decision)
        assert isinstance(found, PromotionDecision)
        self.reported[key].append(found)
        self.figures.found_again += bool(reused)
        slot.owed.pop(key, None)

    def _restart(self) -> None:
        fresh = []
        for slot in self.slots:
            if slot.process is None:
                slot.pipe, theirs = CONTEXT.Pipe()
                slot.process = CONTEXT.Process(
                    target=promoter, args=(theirs, self.url, self.lake.settings), daemon=True
                )
                slot.process.start()
                theirs.close()
                fresh.append(slot)
        for slot in fresh:
            assert slot.pipe is not None
            assert slot.pipe.poll(ROUND_LIMIT_S), "a promoter did not start"
            assert slot.pipe.recv() == "ready"

    def _between(self, number: int) -> None:
        """Nobody works; half of the time somebody reconciles before the killed works are run again."""
        now = ledger.state(self.lake, self.name, "champion")
        self.figures.left_unapplied += now.unapplied is not None
        if self.rng.random() < 0.5:
            time.sleep(SETTLE_S)
            self.agree(f"after round {number}")

    def agree(self, when: str) -> str:
        """Reconcile, see that alias and ledger agree, and give what reconciling found."""
        actor = an_actor(f"reconcile {when}")
        (finding,) = reconcile(self.lake, self.client, model_name=self.name, actor=actor, as_of=AS_OF)
        self.figures.reconciled[str(finding.status)] += 1
        now = ledger.state(self.lake, self.name, "champion")
        alias = self.client.aliases(self.name)
        assert finding.in_order, f"{when}: {finding.status}, {finding.message}"
        assert alias == {"champion": now.current_version}, f"{when}: {alias}, {now.current_version}"
        assert now.unapplied is None
        return str(finding.status)

    def check(self) -> None:
        """The promises: contiguous, chained, one champion, alias as decided, no decision lost or doubled."""
        entries = ledger.entries(self.lake, self.name)
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        assert ledger.verify_chain(self.lake, self.name) == []

        time.sleep(SETTLE_S)
        self.agree("at the end")
        assert self.agree("once more") == "consistent"

        promoted = [entry for entry in entries if entry.outcome is PromotionOutcome.PROMOTED]
        made = [None, *(entry.to_version for entry in promoted)]
        assert [entry.expected for entry in promoted] == made[:-1], (
            "somebody was promoted over another champion"
        )
        applied = Counter(e.decides for e in entries if e.outcome is PromotionOutcome.APPLIED)
        assert set(applied.values()) <= {1}, "a decision was applied twice"
        assert len(promoted) >= self.figures.rounds

        decided = defaultdict(list)
        for entry in entries:
            if entry.outcome is not PromotionOutcome.APPLIED:
                decided[entry.idempotency_key].append(entry)
        assert {key: len(found) for key, found in decided.items()} == dict.fromkeys(self.works, 1)
        lost = [key for key, said in self.reported.items() if said != decided[key] * len(said)]
        assert lost == [], "a promoter was told of a decision that is not in the ledger"
        assert set(self.reported) == set(self.works)
        for entry in (each for found in decided.values() for each in found):
            self.figures.outcomes[str(entry.outcome)] += 1
            if entry.outcome is not PromotionOutcome.PROMOTED:
                assert entry.outcome is PromotionOutcome.HELD
                assert entry.reason.startswith(("superseded: ", "already champion: ")), entry.reason
        self.figures.entries = len(entries)

    def _champion(self) -> ModelVersion | None:
        current = ledger.current(self.lake, self.name, "champion")
        return next((each for each in self.versions if current and each.version == current.to_version), None)
