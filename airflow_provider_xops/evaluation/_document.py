"""A document as plain parts, written once and rendered as HTML and as Markdown.

For the evaluation report and the model card: what stands in one form stands in the other, except that a plot
is a picture in HTML and a sentence in Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from airflow_provider_xops.quality import page as html_page
from airflow_provider_xops.quality.page import Html
from airflow_provider_xops.records import Outcome

__all__ = [
    "Block",
    "Cell",
    "Code",
    "Facts",
    "Items",
    "Link",
    "Plot",
    "Plots",
    "Section",
    "Table",
    "Text",
    "to_html",
    "to_markdown",
    "without_links",
    "word",
]

STYLE = (
    "h2{border-bottom:2px solid #dde1e8;padding-bottom:.2rem}"
    ".plots{display:flex;flex-wrap:wrap;gap:.5rem 2rem;align-items:flex-start}"
    "figure{margin:.5rem 0;break-inside:avoid}figcaption{color:#565e6d;font-size:.87em;max-width:36rem}"
    ".wide{overflow-x:auto}.wide td{overflow-wrap:break-word}.wide td.n,.wide th.n{white-space:nowrap}"
    ".lead{background:#f4f6fa;border-left:4px solid #8a94a6;padding:.2rem 1rem}"
    ".lead p{color:#1d2330}.lead.passed{border-color:#12683c}.lead.failed{border-color:#a3201d}"
    ".lead.errored,.lead.no_data{border-color:#8a4b00}"
    "@media print{body{margin:0;max-width:none;font-size:11px}.wide{overflow:visible}"
    ".wide td{overflow-wrap:anywhere}table{break-inside:auto}tr{break-inside:avoid}"
    "h2,h3{break-after:avoid}}"
)


@dataclass(frozen=True)
class Cell:
    """A table's cell: a figure that is aligned right, or a word in the color of an outcome."""

    text: str
    css: str = "n"


@dataclass(frozen=True)
class Code:
    """Text that is copied, an address for example, and must stand as it is."""

    text: str


@dataclass(frozen=True)
class Link:
    """Words that lead to another document."""

    text: str
    address: str


@dataclass(frozen=True)
class Text:
    """A paragraph; ``note`` in small print."""

    words: str
    note: bool = False


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[str | Link | Code]


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    rows: Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Table:
    """Rows under headers; a value is text, None, a :class:`Cell` or an outcome."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Plot:
    """A picture with what stands below it.

    :param words: what Markdown says in its place; empty where a table says the same.
    """

    svg: str
    caption: str
    words: str = ""


@dataclass(frozen=True)
class Plots:
    """Pictures side by side."""

    plots: Sequence[Plot]


Block = Text | Items | Facts | Table | Plots


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it."""

    title: str
    blocks: Sequence[Block]
    level: int = 2


def word(outcome: Outcome | str) -> str:
    """An outcome as people say it.

    >>> word(Outcome.NO_DATA)
    'no data'
    """
    return str(outcome).replace("_", " ")


def to_html(
    title: str, sections: Iterable[Section], *, lead: Sequence[str] = (), outcome: Outcome | None = None
) -> bytes:
    """One page that needs nothing from anywhere.

    :param lead: what it comes to, in a few sentences, above everything else, in the color of ``outcome``.
    """
    css = outcome.value if outcome else ""
    body: list[str] = []
    if lead:
        items = "".join(f"<p>{escape(words)}</p>" for words in lead)
        body.append(f'<div class="lead {css}">{items}</div>')
    for section in sections:
        body.append(f"<h{section.level}>{escape(section.title)}</h{section.level}>")
        body += [_html(block) for block in section.blocks]
    return html_page.page(title, body, css_class=css, style=STYLE)


def to_markdown(
    title: str, sections: Iterable[Section], *, lead: Sequence[str] = (), plots: bool = True
) -> str:
    """The same as Markdown (with GitHub's tables).

    :param plots: with a sentence in place of each picture.
    """
    parts = [f"# {_escaped(title)}", *(_escaped(words) for words in lead)]
    for section in sections:
        blocks = [_markdown(block) for block in section.blocks if plots or not isinstance(block, Plots)]
        parts += [f"{'#' * section.level} {_escaped(section.title)}", *blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def without_links(page: bytes) -> bytes:
    """A page's copy for a place where its links lead nowhere: their words stay.

    >>> without_links(b'<a href="../x.html">The report</a>')
    b'The report'
    """
    return re.sub(rb'<a href="[^"]*">(.*?)</a>', rb"\1", page)


def _html(block: Block) -> str:
    if isinstance(block, Text):
        css = ' class="note"' if block.note else ""
        return "".join(f"<p{css}>{escape(part)}</p>" for part in _paragraphs(block.words))
    if isinstance(block, Items):
        return f"<ul>{''.join(f'<li>{_linked(item)}</li>' for item in block.items)}</ul>"
    if isinstance(block, Facts):
        return html_page.facts_table((name, _fact(value)) for name, value in block.rows)
    if isinstance(block, Table):
        rows = ([_cell(value) for value in row] for row in block.rows)
        return f'<div class="wide">{html_page.table(block.headers, rows)}</div>'
    drawn = "".join(
        f"<figure>{plot.svg}<figcaption>{escape(plot.caption)}</figcaption></figure>" for plot in block.plots
    )
    return f'<div class="plots">{drawn}</div>'


def _markdown(block: Block) -> str:
    if isinstance(block, Text):
        return "\n\n".join(_escaped(part) for part in _paragraphs(block.words))
    if isinstance(block, Items):
        return "\n".join(f"- {_marked(item)}" for item in block.items)
    if isinstance(block, Facts):
        return _rows(("", ""), block.rows)
    if isinstance(block, Table):
        return _rows(block.headers, block.rows)
    return "\n".join(f"- {_escaped(plot.words)}" for plot in block.plots if plot.words)


def _rows(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    filled = [list(row) for row in rows]
    right = [
        bool(filled) and all(isinstance(row[place], Cell) and row[place].css == "n" for row in filled)
        for place in range(len(headers))
    ]
    lines = [
        f"| {' | '.join(_escaped(name) for name in headers)} |",
        f"|{'|'.join(' ---: ' if number else ' --- ' for number in right)}|",
        *(f"| {' | '.join(_marked(value) for value in row)} |" for row in filled),
    ]
    return "\n".join(lines)


def _cell(value: Any) -> Any:
    if isinstance(value, Cell):
        return html_page.cell(value.text, value.css)
    if isinstance(value, Outcome):
        return html_page.cell(word(value), f"o {value.value}")
    if isinstance(value, Link):
        return _linked(value)
    return value


def _fact(value: Any) -> Any:
    if isinstance(value, Outcome):
        return word(value)
    return _linked(value) if isinstance(value, Link) else value


def _linked(value: str | Link | Code) -> Html:
    if isinstance(value, Code):
        return Html(f"<code>{escape(value.text)}</code>")
    if isinstance(value, Link):
        return Html(f'<a href="{escape(value.address)}">{escape(value.text)}</a>')
    return Html(escape(value))


def _marked(value: Any) -> str:
    if isinstance(value, Cell):
        return _escaped(value.text)
    if isinstance(value, Code):
        return f"`{' '.join(value.text.split()).replace('`', '%60')}`"
    if isinstance(value, Outcome):
        return f"**{word(value)}**"
    if isinstance(value, Link):
        return _escaped(value.text)  # the address leads from a page of the lake, not from a copy of the text
    return "" if value is None else _escaped(str(value))


def _paragraphs(words: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", words.strip()) if part.strip()]


def _escaped(words: str) -> str:
    """Text that Markdown shows as it is: no formatting, no tags, no cell borders.

    >>> _escaped("roc_auc | <b> *x*")
    'roc_auc \\\\| &lt;b&gt; \\\\*x\\\\*'
    """
    plain = " ".join(words.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*|~])", r"\\\1", plain)
    # Brackets alone are intervals; before an address they would be a link.
    plain = re.sub(r"\](?=[(\[:])", r"\\]", plain)
    # An underscore inside a word is no emphasis: names of metrics stay readable.
    plain = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", plain)
    return re.sub(r"^(#|\+|-|\d+[.)])(?=\s)", r"\\\1", plain)
