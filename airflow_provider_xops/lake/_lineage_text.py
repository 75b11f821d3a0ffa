"""A trace as text: the tree that a person reads in a terminal.

For ``xops trace``. Above all: where it came from, down to the files and their checksums; then what was made
from it. A thing that was already told in full is named again with ``(told above)``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from airflow_provider_xops.lake._lineage_graph import Edge, Node, Trace

__all__ = ["render"]

Branch = tuple[Edge, Node]

_TITLES = {
    "up": "WHERE IT CAME FROM",
    "down": "WHAT WAS MADE FROM IT",
}
# Branches that are long and beside the point of a prediction's own chain.
_ASIDE = frozenset({"trained on", "held out for its test"})


def render(trace: Trace, *, width: int = 110, limit: int = 3, full: bool = False) -> str:
    """The trace as a text tree, ending with a newline.

    :param width: longest line where words can be broken; checksums and URIs are never broken.
    :param limit: of more than this many (3 at the least) branches of one kind at one place the first two and
        the last are shown, and how many there are; 0 shows all.
    :param full: also tell where the training and holdout data of a prediction's model came from; without it
        their branches end at the dataset version, with the command that goes on from there.

    Nodes whose record was not found are marked ``MISSING`` with the reason, and counted at the end.
    """
    root = trace.nodes[trace.root]
    lines = [_title(root), *_facts(root, "  ", width), *_in_short(trace, width)]
    for direction, branches in (("up", trace.sources_of), ("down", trace.products_of)):
        tree = _Tree(
            branches,
            direction,
            width,
            limit,
            _ASIDE if root.kind == "prediction" and not full else frozenset(),
        )
        if branches(root.id):
            lines += ["", _TITLES[direction], *tree.below(root.id, "")]
    missing = [node for node in trace.nodes.values() if node.missing]
    if missing:
        lines += ["", f"{len(missing)} link{'s' if len(missing) > 1 else ''} of this chain MISSING:"]
        lines += [f"  {node.title}: {node.missing}" for node in missing]
    return "\n".join(lines) + "\n"


def _in_short(trace: Trace, width: int) -> list[str]:
    """The answer before its proof: which model, approved by whom, trained on what, from which files."""
    root = trace.nodes[trace.root]
    runs = [node for _, node in trace.sources_of(root.id) if node.kind in ("scoring_run", "session")]
    models = [node for run in runs for _, node in trace.sources_of(run.id) if node.kind == "model"]
    models += [root] if root.kind == "model" else []
    if not models:
        return []
    model, facts = models[0], []
    standing = [text for name, text in model.facts if name == "standing"]
    facts.append(("model", f"{_title(model)}, {'; '.join(standing) or 'never promoted'}"))
    for edge, node in trace.sources_of(model.id):
        if node.kind == "decision":
            said, evidence = dict(node.facts), [each.title for _, each in trace.sources_of(node.id)]
            reason = f"{said['reason']}; {', '.join(evidence) or 'no evidence named'}"
            facts.append(("decided", f"{said['decided']} by {said['by']}: {node.title}: {reason}"))
        elif node.kind == "dataset" and edge.upstream == "trained on":
            facts.append(
                ("trained on", f"{_title(node)}, {edge.note.splitlines()[0]}, {_files(trace, node)}")
            )
    for run in runs:
        if run.kind == "session":
            said = dict(run.facts)
            facts.append(("served", f"by {said['server']} as {said['alias']}, loaded {said['since']}"))
        for edge, node in trace.sources_of(run.id):
            if node.kind == "dataset":
                facts.append(("scored rows", f"{_title(node)}, {edge.note}, {_files(trace, node)}"))
    return ["", "IN SHORT", *_facts(Node("", "", "", tuple(facts)), "  ", width)]


def _files(trace: Trace, below: Node) -> str:
    """The source files above a node: by name and checksum if few, else their number."""
    seen, waiting, files = {below.id}, [below.id], []
    while waiting:
        for _, node in trace.sources_of(waiting.pop()):
            if node.id not in seen:
                seen.add(node.id)
                waiting.append(node.id)
                files += [node] if node.kind == "source" else []
    if 0 < len(files) <= 2:
        return "from " + " and ".join(
            f"{_place(node)} (sha256 {dict(node.facts)['sha256']})" for node in files
        )
    return f"from {len(files)} source files" if files else "no source file recorded"


def _place(source: Node) -> str:
    """A source file with its folder: two feeds may name their files alike."""
    return "/".join(dict(source.facts)["uri"].split("/")[-2:])


class _Tree:
    def __init__(
        self,
        branches: Callable[[str], list[Branch]],
        direction: str,
        width: int,
        limit: int,
        aside: frozenset[str],
    ) -> None:
        self._branches = branches
        self._up = direction == "up"
        self._width = width
        self._limit = max(limit, 3) if limit else 0
        self._aside = aside
        self._told: set[str] = set()

    def below(self, node_id: str, indent: str) -> list[str]:
        self._told.add(node_id)
        shown = self._shortened(self._branches(node_id))
        lines: list[str] = []
        for number, branch in enumerate(shown):
            last = number == len(shown) - 1
            corner, rest = ("└─ ", "   ") if last else ("├─ ", "│  ")
            if isinstance(branch, str):
                lines.append(f"{indent}{corner}{branch}")
                continue
            lines += self._branch(branch, indent + corner, indent + rest)
        return lines

    def _branch(self, branch: Branch, first: str, rest: str) -> list[str]:
        edge, node = branch
        relation = edge.upstream if self._up else edge.downstream
        again = node.id in self._told and self._branches(node.id)
        lines = [f"{first}{relation}: {_title(node)}{' (told above)' if again else ''}"]
        stem = rest + ("│  " if self._branches(node.id) and not again else "   ")
        for note in edge.note.splitlines():
            lines += _wrapped("", note, stem, self._width)
        if again:
            return lines
        if relation in self._aside and self._branches(node.id):
            on = f"xops trace {node.title.removeprefix('dataset ')}"
            return [*lines, *_facts(node, stem, self._width), f"{rest}└─ ... goes on with: {on}"]
        return lines + _facts(node, stem, self._width) + self.below(node.id, rest)

    def _shortened(self, branches: list[Branch]) -> Sequence[Branch | str]:
        shown: list[Branch | str] = []
        for kind in dict.fromkeys((edge.upstream, node.kind) for edge, node in branches):
            same = [each for each in branches if (each[0].upstream, each[1].kind) == kind]
            if self._limit and len(same) > self._limit:
                shown += [
                    *same[:2],
                    f"... and {len(same) - 3} more like these (--json names them all) ...",
                    same[-1],
                ]
            else:
                shown += same
        return shown


def _title(node: Node) -> str:
    return f"{node.title}  ** MISSING: {node.missing} **" if node.missing else node.title


def _facts(node: Node, indent: str, width: int) -> list[str]:
    broad = max((len(name) for name, _ in node.facts), default=0)
    lines: list[str] = []
    for name, text in node.facts:
        lines += _wrapped(f"{name:<{broad}}  ", text, indent, width)
    return lines


def _wrapped(label: str, text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, max(width, len(indent) + len(label) + 20), initial_indent=indent + label,
        subsequent_indent=indent + " " * len(label), break_long_words=False, break_on_hyphens=False,
    ) or [indent + label]  # fmt: skip
