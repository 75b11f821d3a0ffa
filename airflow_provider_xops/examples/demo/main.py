"""Runs the demo from an empty folder to its summary: starts the stack, plays the story, tells what came of
it."""

from __future__ import annotations

import getpass
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.examples.demo.airflow_api import AirflowApi
from airflow_provider_xops.examples.demo.replay import Replay, Story
from airflow_provider_xops.examples.demo.stack import Stack
from airflow_provider_xops.examples.demo.summary import collect, render_summary
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import Actor
from airflow_provider_xops.settings import LakeSettings

__all__ = ["run_demo"]


def run_demo(*, state: Path, dags: Path, keep: bool = True, story: Story | None = None) -> int:
    """Play the demo; returns 0 only if every step did what it should.

    :param state: folder of everything the demo writes; a second call with the same folder resumes.
    :param dags: the reference DAG files.
    :param keep: keep serving until Ctrl-C after the summary.
    :param story: which days are played (default: the quick story).
    """
    started = time.monotonic()
    _terminate_like_interrupt()

    def say(line: str) -> None:
        passed = int(time.monotonic() - started)
        print(f"[{passed // 60:02d}:{passed % 60:02d}] {line}", flush=True)

    story = story or Story()
    stack = Stack(state, dags=dags)
    code = 1
    try:
        lake = _own_lake(stack)
        say(f"starting Airflow, MLflow and the lake (state and logs under {stack.state})")
        stack.start()
        say(f"Airflow {stack.airflow_url}  MLflow {stack.mlflow_url}  lake {stack.lake_uri}")
        api = AirflowApi(stack.airflow_url, username="admin", password=stack.password())
        replay = Replay(stack=stack, api=api, lake=lake, say=say, story=story)
        replay.play()
        summary = collect(
            stack, lake, story, stopped_reasons=replay.stopped_reasons, online=replay.online,
            seconds=time.monotonic() - started,
        )  # fmt: skip
        _write(stack.state / "summary.json", summary)
        print(render_summary(summary), flush=True)
        code = 0 if summary["ok"] else 1
        if keep:
            stack.start_triggerer()
            print("\nServing until Ctrl-C.", flush=True)
            _serve_until_interrupted(stack)
    except KeyboardInterrupt:
        print("\nstopping ...", flush=True)
    except XOpsError as error:
        print(f"\nThe demo stopped: {error}\nLogs: {stack.logs}", file=sys.stderr, flush=True)
        code = 1
    finally:
        # Stopping is bounded in time; interrupted by a second signal it would leave servers behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
    return code


def _own_lake(stack: Stack) -> Lake:
    settings = LakeSettings(uri=stack.lake_uri)
    now_us = time.time_ns() // 1000
    from datetime import UTC, datetime

    actor = Actor.user(getpass.getuser(), key="demo-lake-init", fence=now_us)
    init_lake(settings, actor=actor, as_of=datetime.now(UTC))
    return open_lake(settings)


def _serve_until_interrupted(stack: Stack) -> None:
    while True:
        dead = stack.died()
        if dead:
            raise KeyboardInterrupt(f"{dead} ended")
        time.sleep(1)


def _terminate_like_interrupt() -> None:
    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)


def _write(path: Path, data: dict[str, Any]) -> None:
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(data, indent=2, default=str) + "\n", encoding="utf-8")
    part.replace(path)
