"""User code is named by what another process can import; everything else is refused with its reason."""

from __future__ import annotations

import functools
import hashlib
import importlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import UserCodeError
from airflow_provider_xops.usercode import code_version, reference_of, resolve_callable, source_digest


def top_level(value: int) -> int:
    return value + 1


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Write a module and make it importable for the test."""
    names = []
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, source: str) -> Path:
        file = tmp_path / f"{name}.py"
        file.write_text(source)
        names.append(name)
        importlib.invalidate_caches()
        return file

    yield write
    for name in names:
        sys.modules.pop(name, None)


def code_of(ref: Any) -> str:
    with pytest.raises(UserCodeError) as caught:
        resolve_callable(ref)
    assert caught.value.todo
    assert not caught.value.retryable
    return caught.value.code


def test_a_name_resolves_to_its_function() -> None:
    assert resolve_callable("math:sqrt") is math.sqrt
    assert resolve_callable(" collections:OrderedDict.fromkeys ")("ab") == {"a": None, "b": None}


def test_a_module_level_function_passes_as_an_object() -> None:
    assert resolve_callable(top_level) is top_level
    assert reference_of(top_level) == f"{__name__}:top_level"
    assert resolve_callable(reference_of(top_level)) is top_level


@pytest.mark.parametrize(
    "ref", ["", "math", "math.sqrt", ":sqrt", "math:", "a b:c", "math:sqrt:x", "../x:y", "math:sqrt()"]
)
def test_text_of_another_form_is_malformed(ref: str) -> None:
    assert code_of(ref) == "user_code.malformed"


def test_what_is_no_function_is_malformed() -> None:
    assert code_of("math:pi") == "user_code.malformed"
    assert code_of(functools.partial(top_level, 1)) == "user_code.malformed"
    assert code_of(42) == "user_code.malformed"


def test_a_lambda_is_refused() -> None:
    assert code_of(lambda: None) == "user_code.lambda"


def test_a_nested_function_is_refused() -> None:
    def inside() -> None: ...

    assert code_of(inside) == "user_code.nested"


def test_main_is_refused_as_text_and_as_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_main() -> None: ...

    monkeypatch.setattr(of_main, "__module__", "__main__")
    assert code_of(of_main) == "user_code.main"
    assert code_of("__main__:of_main") == "user_code.main"


def test_a_function_of_a_dag_file_is_refused(tmp_path: Path) -> None:
    # given: a DAG file loaded as Airflow's DagBag loads it
    file = tmp_path / "my_dag.py"
    file.write_text("def features(): ...\n")
    name = "unusual_prefix_0123_my_dag"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        assert code_of(module.features) == "user_code.dag_file"
        assert code_of(f"{name}:features") == "user_code.dag_file"
    finally:
        del sys.modules[name]


def test_a_function_of_the_dags_folder_that_no_import_finds_is_refused_as_dag_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    scope: dict[str, Any] = {"__name__": "no_such_module_anywhere"}
    exec(compile("def features(): ...", str(tmp_path / "dag.py"), "exec"), scope)
    assert code_of(scope["features"]) == "user_code.dag_file"


def test_a_module_of_the_dags_folder_that_imports_by_name_is_accepted(
    package: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    package("xops_helper_beside_dag", "def features(): return 7\n")
    assert resolve_callable("xops_helper_beside_dag:features")() == 7


def test_a_missing_module_and_a_missing_name_are_not_found_with_a_hint() -> None:
    assert code_of("no_such_package.module:fn") == "user_code.not_found"
    with pytest.raises(UserCodeError, match="sqrt") as caught:
        resolve_callable("math:sqtr")
    assert caught.value.code == "user_code.not_found"


def test_a_raising_module_is_import_failed_without_its_message(
    package: Callable[[str, str], Path],
) -> None:
    package("xops_broken_module", "raise RuntimeError('password=hunter2')\n")
    with pytest.raises(UserCodeError) as caught:
        resolve_callable("xops_broken_module:fn")
    assert caught.value.code == "user_code.import_failed"
    assert "RuntimeError" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_dependency_of_the_module_is_named(package: Callable[[str, str], Path]) -> None:
    package("xops_needs_more", "import no_such_dependency\n")
    with pytest.raises(UserCodeError, match="no_such_dependency") as caught:
        resolve_callable("xops_needs_more:fn")
    assert caught.value.code == "user_code.import_failed"


def test_a_replaced_function_is_refused(package: Callable[[str, str], Path]) -> None:
    package("xops_replaced", "def fn(): ...\noriginal = fn\ndef fn(): ...\n")
    module = importlib.import_module("xops_replaced")
    assert code_of(module.original) == "user_code.not_found"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_code_version_is_the_commit_while_the_file_is_committed(
    package: Callable[[str, str], Path], tmp_path: Path
) -> None:
    file = package("xops_versioned", "def fn(): ...\n")
    ignored = package("xops_ignored", "def fn(): ...\n")
    (tmp_path / ".gitignore").write_text("xops_ignored.py\n__pycache__/\n")
    by_hash = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert code_version("xops_versioned:fn") == by_hash

    git(tmp_path, "init", "-q")
    assert code_version("xops_versioned:fn") == by_hash, "a checkout without a commit has no version"
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "-qm", "first")
    assert code_version("xops_versioned:fn") == by_hash, "an untracked file is not in the commit"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "second")
    assert code_version("xops_versioned:fn") == "git:" + git(tmp_path, "rev-parse", "HEAD")
    assert code_version("xops_ignored:fn") == "sha256:" + hashlib.sha256(ignored.read_bytes()).hexdigest()

    file.write_text("def fn(): return 1\n")
    changed = code_version("xops_versioned:fn")
    assert changed == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert changed != by_hash


def test_the_source_digest_changes_with_the_file_and_with_no_other_commit(
    package: Callable[[str, str], Path], tmp_path: Path
) -> None:
    file = package("xops_sourced", "def fn(): ...\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    version, digest = code_version("xops_sourced:fn"), source_digest("xops_sourced:fn")
    assert digest == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()

    (tmp_path / "README.md").write_text("something else\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "elsewhere")
    assert code_version("xops_sourced:fn") != version
    assert source_digest("xops_sourced:fn") == digest

    file.write_text("def fn(): return 1\n")
    git(tmp_path, "commit", "-qam", "here")
    assert source_digest("xops_sourced:fn") != digest


def test_the_source_digest_of_what_has_no_source_exists() -> None:
    assert source_digest("sys:intern") == "sha256:" + hashlib.sha256(sys.version.encode()).hexdigest()
    assert source_digest("math:sqrt").startswith("sha256:")


def test_code_version_without_git_is_the_hash(
    package: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = package("xops_without_git", "def fn(): ...\n")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert code_version("xops_without_git:fn") == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


def test_code_version_of_a_reexported_class_is_of_the_file_that_defines_it() -> None:
    import json.decoder

    expected = hashlib.sha256(Path(json.decoder.__file__).read_bytes()).hexdigest()
    assert code_version("json:JSONDecoder") == f"sha256:{expected}"


def test_code_version_of_an_extension_module_and_of_a_built_in_one_exists() -> None:
    assert code_version("sys:intern").startswith("sha256:")
    assert code_version("math:sqrt").startswith("sha256:")
