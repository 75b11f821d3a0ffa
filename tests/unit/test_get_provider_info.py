"""The provider's metadata, held against Airflow's own two schemas and against the modules it names."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from airflow_provider_xops.get_provider_info import get_provider_info


def _schema(name: str) -> dict[str, Any]:
    import airflow

    schema: dict[str, Any] = json.loads((Path(airflow.__file__).parent / name).read_text())
    return schema


def test_metadata_is_valid_against_the_runtime_schema() -> None:
    jsonschema.validate(get_provider_info(), _schema("provider_info.schema.json"))


def test_metadata_is_valid_against_the_stricter_source_schema() -> None:
    # given the fields that only a provider inside Airflow's own repository carries
    released = {"state": "ready", "lifecycle": "incubation", "source-date-epoch": 1, "versions": ["0.1.0"]}
    schema = _schema("provider.yaml.schema.json")
    required = {name: value for name, value in released.items() if name in schema["properties"]}

    jsonschema.validate({**get_provider_info(), **required}, schema)


def test_package_name_is_the_distribution_that_carries_the_entry_point() -> None:
    points = [
        point
        for point in metadata.entry_points(group="apache_airflow_provider")
        if point.module == "airflow_provider_xops.get_provider_info"
    ]

    assert [point.dist.name for point in points if point.dist] == [get_provider_info()["package-name"]]
    assert points[0].load()() == get_provider_info()


def test_every_call_gives_a_fresh_value() -> None:
    get_provider_info()["connection-types"].clear()

    assert len(get_provider_info()["connection-types"]) == 3


def test_module_imports_nothing_and_so_cannot_fail_in_discovery() -> None:
    # when it is loaded in an interpreter that refuses every further import of ours and of Airflow
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.split('.')[0]\n"
        "        allowed = ('airflow_provider_xops', 'airflow_provider_xops.get_provider_info')\n"
        "        if name not in allowed and top not in sys.stdlib_module_names:\n"
        "            raise ImportError('refused: ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from airflow_provider_xops.get_provider_info import get_provider_info\n"
        "print(get_provider_info()['package-name'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.strip() == "airflow-provider-xops", done.stderr


@pytest.mark.parametrize("section", ["hooks", "operators"])
def test_named_modules_import(section: str) -> None:
    for entry in get_provider_info()[section]:
        for module in entry["python-modules"]:
            importlib.import_module(module)


def test_named_links_are_operator_links_and_none_is_left_out() -> None:
    from airflow_provider_xops.version_compat import BaseOperatorLink

    named = get_provider_info()["extra-links"]
    classes = [
        getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in named
    ]

    assert all(issubclass(link, BaseOperatorLink) for link in classes)
    from airflow_provider_xops.operators import data, model

    used = {
        type(link)
        for module in (data, model)
        for name in module.__all__
        for link in getattr(module, name).operator_extra_links
    }
    assert used == set(classes)


@pytest.mark.parametrize(
    "entry", get_provider_info()["connection-types"], ids=lambda entry: entry["connection-type"]
)
def test_connection_types_agree_with_their_hooks(entry: dict[str, Any]) -> None:
    module, _, name = entry["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)

    assert hook.conn_type == entry["connection-type"]
    assert hook.hook_name == entry["hook-name"]
    assert "__" not in entry["connection-type"]  # Airflow's form splits field names there
    assert hook.default_conn_name == f"{hook.conn_type}_default"


def test_secret_form_fields_are_password_fields() -> None:
    by_type = {entry["connection-type"]: entry for entry in get_provider_info()["connection-types"]}

    assert by_type["xops_mlflow"]["conn-fields"]["token"]["schema"]["format"] == "password"
    for entry in by_type.values():
        plain = {
            name
            for name, field in entry["conn-fields"].items()
            if field["schema"].get("format") != "password"
        }
        assert not plain & {"token", "password", "secret", "api_key", "secret_access_key"}


def test_options_have_no_default_that_would_hide_environment_variables() -> None:
    options = get_provider_info()["config"]["xops"]["options"]

    assert options
    assert {name: option["default"] for name, option in options.items()} == dict.fromkeys(options)


def test_airflow_discovers_the_provider_with_its_forms(airflow_db: Path) -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()

    assert manager.providers["airflow-provider-xops"].data["package-name"] == "airflow-provider-xops"
    assert {"xops_lake", "xops_mlflow"} <= set(manager.hooks)
