"""The documentation says what is: files, commands, operators and code that it names exist."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from airflow_provider_xops import cli

REPOSITORY = Path(__file__).resolve().parents[2]
TOP_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAGES = sorted([*(REPOSITORY / name for name in TOP_PAGES), *(REPOSITORY / "docs").rglob("*.md")])
ROOTS = ("airflow_provider_xops/", "dags/", "tests/", "benchmarks/", "docs/", "docker/", ".ci/", ".github/")
MAKE_WORDS = re.compile(r"`?\bmake ([a-z]+)\b")
_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def _blocks(page: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name in language.split("|")]


def _spans(page: Path) -> list[str]:
    """Inline code, without the fenced blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


@_every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = []
    for target in targets:
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            missing.append(target)
        elif anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.MULTILINE)
            names = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            if anchor not in names:
                missing.append(target)
    assert missing == []


@_every_page
def test_files_that_are_named_exist(page: Path) -> None:
    named = [span for span in _spans(page) if span.startswith(ROOTS) and not re.search(r"[<>{}*\s]", span)]
    assert [name for name in named if not (REPOSITORY / name.rstrip("/")).exists()] == []


def _commands(page: Path) -> list[list[str]]:
    blocks = [block.replace("\\\n", " ") for block in _blocks(page, "|bash|sh")]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += _spans(page)
    found = []
    for line in lines:
        if re.match(r"xops [a-z-]", line):
            found.append(shlex.split(line.split("#")[0].replace("...", ""))[1:])
    return found


@_every_page
def test_xops_commands_are_what_the_command_line_takes(page: Path) -> None:
    parser = cli._parser()
    for words in _commands(page):
        known = {
            option
            for action in _every_action(parser)
            for option in action.option_strings
        }  # fmt: skip
        assert {word for word in words if word.startswith("--")} <= known, words
        node = parser
        for word in words:
            choices = _subcommands(node)
            if choices is None or word.startswith("-"):
                break
            assert word in choices, f"xops {' '.join(words)}: there is no {word!r}"
            node = choices[word]


def _subcommands(parser: object) -> dict[str, object] | None:
    for action in parser._actions:  # type: ignore[attr-defined]
        if hasattr(action, "_name_parser_map"):
            return dict(action._name_parser_map)
    return None


def _every_action(parser: object) -> list[object]:
    found = list(parser._actions)  # type: ignore[attr-defined]
    for child in (_subcommands(parser) or {}).values():
        found += _every_action(child)
    return found


def test_the_check_of_commands_sees_commands() -> None:
    assert any(words[:2] == ["lake", "init"] for words in _commands(REPOSITORY / "README.md"))


@_every_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    code = "\n".join([*_spans(page), *_blocks(page, "")])
    assert set(MAKE_WORDS.findall(code)) <= targets


def _classes(module: str) -> set[str]:
    tree = ast.parse((REPOSITORY / module).read_text())
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return set(names)


def _operators() -> set[str]:
    return _classes("airflow_provider_xops/operators/data.py") | _classes(
        "airflow_provider_xops/operators/model.py"
    )


@_every_page
def test_operators_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"\b[A-Z]\w+Operator\b", page.read_text()))
    others = _classes("airflow_provider_xops/operators/approval.py")
    assert named - {"XOpsOperator"} <= _operators() | others


@pytest.mark.parametrize("name", ["README.md", "docs/operators.md"])
def test_the_operator_table_is_complete(name: str) -> None:
    assert _operators() <= set(
        re.findall(r"^\| `(\w+Operator)`", (REPOSITORY / name).read_text(), flags=re.MULTILINE)
    )


@_every_page
def test_code_blocks_are_python_and_import_what_exists(page: Path) -> None:
    for block in _blocks(page, "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airflow_provider_xops"):
                path = REPOSITORY / f"{(node.module or '').replace('.', '/')}.py"
                assert path.is_file(), node.module
                source = path.read_text()
                for alias in node.names:
                    assert re.search(rf"\b{alias.name}\b", source), f"{node.module}.{alias.name}"


@_every_page
def test_yaml_blocks_are_yaml(page: Path) -> None:
    for block in _blocks(page, "yaml"):
        assert yaml.safe_load(block)


def test_the_own_dag_has_thirty_lines_and_loads(tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (block,) = _blocks(REPOSITORY / "README.md", "python")
    assert len(block.splitlines()) <= 30
    (tmp_path / "orders.py").write_text(block)
    bag = DagBag(dag_folder=str(tmp_path))
    assert bag.import_errors == {}
    tasks = {dag_id: [task.task_id for task in dag.tasks] for dag_id, dag in bag.dags.items()}
    assert tasks == {
        "orders": ["ingest", "check", "publish"],
        "orders_model": ["train", "judge", "promote"],
        "orders_scoring": ["score"],
    }


def test_every_page_is_on_the_map() -> None:
    index = (REPOSITORY / "docs/index.md").read_text()
    assert [
        page.name
        for page in (REPOSITORY / "docs").glob("*.md")
        if page.name not in index and page.name != "index.md"
    ] == []


def test_the_change_log_has_the_version() -> None:
    from airflow_provider_xops import __version__

    assert f"## [{__version__}]" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_commit_hooks_run_the_tools_of_make_check() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks}
    (recipe,) = re.findall(
        r"^check:.*\n((?:\t.+\n)+)", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE
    )
    assert tools == set(re.findall(r"\$\(BIN\)/([\w-]+)", recipe))


def test_the_pipeline_calls_the_same_targets_on_every_supported_python() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["check-and-test"]
    steps = [step.get("run", "") for step in job["steps"]]
    assert {"make check", "make test"} <= set(steps)
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert job["strategy"]["matrix"]["python"] == re.findall(r"Python :: (3\.\d+)", project)
