"""The card of a model version: what it is for, how good it is, what is not known, made from the records.

For people who were not there: auditors, reviewers, whoever is on call. The headings follow *Model Cards for
Model Reporting* (Mitchell et al., 2019). Everything on it but the intended use, the limits and the contacts
comes from records of the lake, which it names; a record that does not exist is named as missing.

It is written into the lake as Markdown and HTML, copied onto the model's MLflow run, and in short into the
version's description in MLflow. The same content is written once.

What it does not do: it measures nothing, and it does not follow the model. A card says what was known when it
was written; write it again after promotion or a smoke test, and there are two.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation._card_facts import CardFacts, gather
from airflow_provider_xops.evaluation._card_sections import (
    CardWords,
    lead_of,
    outcome_of,
    sections_of,
    short_sections,
)
from airflow_provider_xops.evaluation._document import Section, Text, to_html, to_markdown, without_links
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ModelCard, ModelVersion
from airflow_provider_xops.registry import documents
from airflow_provider_xops.registry.client import RegistryClient

__all__ = ["CardDocument", "card_of", "write_card"]

log = logging.getLogger(__name__)

FOLDER = "cards"
REPORTS = "_xops/reports"


@dataclass(frozen=True, kw_only=True)
class CardDocument:
    """A card that is not written yet.

    :param made_from: ids of the records it tells of.
    :param content_digest: SHA-256 over everything on it but the moment it was made.
    """

    markdown: str
    html: bytes
    made_from: tuple[str, ...]
    content_digest: str
    facts: CardFacts
    words: CardWords


def card_of(
    lake: Lake,
    model: ModelVersion,
    *,
    intended_use: str = "",
    limits: str = "",
    contacts: Sequence[str] = (),
    as_of: datetime,
) -> CardDocument:
    """The card of a version as the lake knows it at ``as_of``; nothing is written.

    :param intended_use: what the model is for, and what not: plain text, an empty line between paragraphs.
    :param limits: when not to trust it, likewise. :param contacts: who answers for it.
    :raises ArgumentError: ``argument.contacts``: contacts are one text instead of a list of them.
    :raises UnavailableError: the storage did not answer; trying again is safe.
    """
    if isinstance(contacts, str):
        raise ArgumentError(
            "contacts are one text", code="argument.contacts", why="each person or team is an entry",
            todo='give a list, such as ["ml-team@example.org"]',
        )  # fmt: skip
    words = CardWords(
        intended_use=intended_use.strip(), limits=limits.strip(), contacts=tuple(str(one) for one in contacts)
    )
    facts = gather(lake, model, as_of=as_of)
    title, lead, sections = f"Model card of {model.ref}", lead_of(facts), sections_of(facts, words)
    digest = hashlib.sha256(to_html(title, sections, lead=lead, outcome=outcome_of(facts))).hexdigest()
    written = Section("Written", [Text(f"{as_of:%Y-%m-%d %H:%M} UTC; content {digest[:12]}.", note=True)])
    return CardDocument(
        markdown=to_markdown(title, [*sections, written], lead=lead),
        html=to_html(title, [*sections, written], lead=lead, outcome=outcome_of(facts)),
        made_from=tuple(record.record_id for record in facts.records),
        content_digest=digest,
        facts=facts,
        words=words,
    )


def write_card(
    lake: Lake,
    client: RegistryClient | None,
    model: ModelVersion,
    *,
    intended_use: str = "",
    limits: str = "",
    contacts: Sequence[str] = (),
    actor: Actor,
    as_of: datetime,
) -> ModelCard:
    """Write the card of a version into the lake and MLflow; the same content is one record.

    :param client: None: into the lake only.
    :param intended_use: what the model is for, and what not: plain text, an empty line between paragraphs.
    :param limits: when not to trust it, likewise. :param contacts: who answers for it.
    :returns: the record; ``report_uri`` is the page, ``documents`` has ``markdown`` and ``html``.
    :raises ArgumentError: ``argument.contacts``. :raises NotFoundError: the version is not in MLflow.
    :raises UnavailableError: MLflow or the storage did not answer; trying again is safe.

    >>> write_card(lake, client, model, intended_use="Which flights to call ahead about.",
    ...            limits="Not for pricing.", actor=actor, as_of=now).report_uri  # doctest: +SKIP
    's3://lake/_xops/reports/cards/5b1c....html'
    """
    card = card_of(
        lake, model, intended_use=intended_use, limits=limits, contacts=contacts, as_of=as_of
    )  # fmt: skip
    question = ModelCard(
        recorded_at=as_of, produced_by=actor.producer, model=model.ref, content_digest=card.content_digest,
        documents={}, made_from=card.made_from,
    )  # fmt: skip
    stem = f"{FOLDER}/{question.record_id}"
    put = lake.evidence.put_report
    uris = {
        "markdown": put(f"{stem}.md", card.markdown.encode(), content_type="text/markdown"),
        "html": put(f"{stem}.html", card.html, content_type="text/html"),
    }
    record = ModelCard(
        recorded_at=as_of, produced_by=actor.producer, model=model.ref, content_digest=card.content_digest,
        documents=uris, made_from=card.made_from, report_uri=uris["html"],
    )  # fmt: skip
    if not lake.evidence.put(record):
        kept = lake.evidence.get(ModelCard.kind, record.record_id)
        assert isinstance(kept, ModelCard)
        record = kept
        log.info("The card of %s is as it was (%s).", model.ref, record.record_id)
    if client is not None:
        # What the lake keeps, which may have been written before.
        kept_as = {name: lake.storage.get(f"{REPORTS}/{stem}.{name}") for name in ("md", "html")}
        files = {
            "model_card.md": kept_as["md"] or card.markdown.encode(),
            "model_card.html": without_links(kept_as["html"] or card.html),
        }
        documents.attach(client, model, files)
        documents.describe(client, model, description_of(card, uri=uris["html"]))
    return record


def description_of(card: CardDocument, *, uri: str) -> str:
    """The card in short, as Markdown for the version's description in MLflow.

    :param uri: where the whole card is.
    """
    title = f"Model card of {card.facts.model.ref}"
    sections = short_sections(card.facts, card.words, uri=uri)
    return to_markdown(title, sections, lead=lead_of(card.facts), plots=False)
