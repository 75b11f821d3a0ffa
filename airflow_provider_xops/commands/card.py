"""`xops card`: the card of a model version, written into the lake and MLflow, or printed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.errors import ArgumentError

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    card = add(groups, "card", _card, "Write the card of a model version, or print it and write nothing.")
    card.add_argument("model")
    card.add_argument("version", type=int)
    shown = card.add_mutually_exclusive_group()
    shown.add_argument("--markdown", action="store_true", help="print it as Markdown; nothing is written")
    shown.add_argument("--html", action="store_true", help="print it as a page; nothing is written")
    shown.add_argument("--lake-only", action="store_true", help="write it, but not into MLflow")
    card.add_argument("--intended-use", default="", metavar="TEXT", help="text, or @FILE")
    card.add_argument("--limits", default="", metavar="TEXT", help="text, or @FILE")
    card.add_argument("--contact", action="append", default=[], help="who answers for it; repeatable")


def _card(args: argparse.Namespace) -> int:
    from airflow_provider_xops.evaluation.card import card_of, write_card
    from airflow_provider_xops.registry.loading import get_model

    words: dict[str, Any] = {
        "intended_use": _text(args.intended_use, "--intended-use"),
        "limits": _text(args.limits, "--limits"),
        "contacts": tuple(args.contact),
    }
    lake = _common.lake(args)
    model = get_model(lake, args.model, args.version)
    if args.markdown or args.html:
        card = card_of(lake, model, **words, as_of=_common.now())
        data = {
            "model": str(model.ref),
            "content_digest": card.content_digest,
            "made_from": list(card.made_from),
        }
        text = card.html.decode() if args.html else card.markdown
        _common.show(args, {**data, "html" if args.html else "markdown": text}, text.rstrip("\n"))
        return 0
    client = None if args.lake_only else _common.registry(args)
    record = write_card(lake, client, model, **words, actor=_common.actor(args), as_of=_common.now())
    lines = [f"card of {model.ref}, made from {len(record.made_from)} records: {record.record_id}"]
    lines += [f"{name}: {uri}" for name, uri in sorted(record.documents.items())]
    _common.show(args, record.to_json(), "\n".join(lines))
    return 0


def _text(given: str, option: str) -> str:
    """The text of an option; ``@FILE`` reads it from a file, ``@-`` from standard input."""
    if not given.startswith("@"):
        return given
    if given == "@-":
        return sys.stdin.read()
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(
            f"the file of {option} cannot be read", code="argument.file", why=type(error).__name__,
            todo="name a text file, or give the text itself",
        ) from None  # fmt: skip
