"""What the commands share: the moment, on whose behalf, the lake, and how a result is shown."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import Actor

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.registry.client import RegistryClient

__all__ = ["Add", "actor", "lake", "now", "registry", "show", "table_at"]

# add(group, name, run, help) gives the parser of a command, with the arguments that all commands take.
Add = Callable[[Any, str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def now() -> datetime:
    return datetime.now(UTC)


def actor(args: argparse.Namespace) -> Actor:
    key = getattr(args, "key", None)
    if not key:
        key = args.key = f"cli-{uuid.uuid4().hex[:16]}"
        print(f"idempotency key: {key}", file=sys.stderr)
    return Actor.user(getpass.getuser(), key=key, fence=time.time_ns() // 1000)


def lake(args: argparse.Namespace) -> Lake:
    from airflow_provider_xops.lake.lake import open_lake
    from airflow_provider_xops.settings import lake_settings_from_env

    return open_lake(lake_settings_from_env(args.lake))


def registry(args: argparse.Namespace) -> RegistryClient:
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.settings import mlflow_settings_from_env

    return RegistryClient(mlflow_settings_from_env(args.mlflow))


def table_at(text: str) -> tuple[str, int | None]:
    table, _, version = text.partition("@")
    if version and not version.isdigit():
        raise ArgumentError(
            f"{text!r} is not TABLE or TABLE@VERSION",
            code="argument.table",
            todo="write for example flights@12",
        )
    return table, int(version) if version else None


def show(args: argparse.Namespace, data: Any, text: str) -> None:
    print(json.dumps(data, indent=2) if getattr(args, "json", False) else text)
