"""Policies: lists of gates as Python objects, as plain data, or in a YAML or JSON file, read strictly.

For DAG files, the operators and ``xops gates``. A policy is one of::

    "/opt/policies/production.yaml"         name: production
                                            gates:
                                              - gate: metric_threshold
                                                metric: roc_auc
                                                minimum: 0.7
    "my_project.gates:production"           a function without arguments: gives such a mapping, or a list
    [MetricThreshold(metric="roc_auc", minimum=0.7), {"gate": "smoke_tested"}]

Nothing is guessed: an unknown gate, field or type is an error that names the file, the gate's place in it,
and what was probably meant.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import ArgumentError, UserCodeError, XOpsError
from airflow_provider_xops.evaluation.gates.base import Gate
from airflow_provider_xops.evaluation.gates.catalog import GATES
from airflow_provider_xops.evaluation.gates.figures import MetricGate
from airflow_provider_xops.records import digest_of
from airflow_provider_xops.registry.leaks import LEAK_GATE
from airflow_provider_xops.training.metrics import METRICS
from airflow_provider_xops.usercode import reference_of, resolve_callable

__all__ = ["Policy", "gates_digest", "gates_from", "gates_schema", "policy_from"]

FILE_SUFFIXES = (".yaml", ".yml", ".json")
UNNAMED = "gates"
FORMS = "give a .yaml or .json file, package.module:function, or a list of gates"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A named list of gates. ``digest`` changes when a gate or one of its fields does; the name is no part of
    it.

    :raises ArgumentError: ``argument.gate``: a gate of your own has the name of another one.
    """

    name: str
    gates: tuple[Gate, ...]

    def __post_init__(self) -> None:
        for number, gate in enumerate(self.gates, 1):
            # Stored as JSON and read again it would be the other gate.
            taken = type(gate) is not GATES.get(gate.kind, type(gate))
            if taken or LEAK_GATE in (gate.kind, gate.name):
                raise ArgumentError(
                    f"gate {number} of {self.name} is a {type(gate).__name__} and calls itself {gate.kind}",
                    code="argument.gate", why="that is another gate's name", todo="give it a kind of its own",
                )  # fmt: skip

    @property
    def digest(self) -> str:
        """SHA-256 over the gates in their order."""
        return gates_digest(self.gates)


def policy_from(value: Any, *, name: str | None = None) -> Policy:
    """A policy from any of its forms; see the module.

    :param name: what it is called where the value says nothing; default: the file's or function's name.
    :raises ArgumentError: ``argument.gate`` (an unknown gate, field or value, with its place),
        ``argument.policy_missing`` (no such file), ``argument.policy`` (the file is no mapping, or no YAML).
    :raises UserCodeError: the function cannot be imported, or raised.

    >>> policy_from([{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.6}], name="mine").name
    'mine'
    """
    if isinstance(value, Policy):
        return value if name is None else dataclasses.replace(value, name=name)
    content, place, own_name = _content(value)
    if isinstance(content, Policy):
        return content
    if isinstance(content, Mapping) and "gate" not in content:
        unknown = [key for key in content if key not in ("name", "gates")]
        if unknown:
            raise _unknown(f"{place}a policy has no", unknown, ("name", "gates"), code="argument.policy")
        if "gates" not in content:
            raise _not_a_policy(place, "it has no list of gates")
        own_name = content.get("name") or own_name
        if not isinstance(own_name, str | None):
            raise _not_a_policy(place, "its name is no text")
        content = content["gates"]
    if isinstance(content, str | bytes) or not isinstance(content, Sequence):
        raise ArgumentError(
            f"{place}gates are a list", code="argument.gate",
            todo='for example [{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.7}]',
        )  # fmt: skip
    gates = tuple(_gate(item, f"{place}gate {number}: ") for number, item in enumerate(content, 1))
    return Policy(name=name or own_name or UNNAMED, gates=gates)


def gates_from(values: Any) -> tuple[Gate, ...]:
    """Gates from Python objects, from dictionaries as a DAG file or a JSON document has them, or from a
    policy's file or function.

    :raises ArgumentError: ``argument.gate`` for an unknown gate, metric or field (the known ones are listed).

    >>> gates_from([{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.6}])
    (MetricThreshold(metric='roc_auc', minimum=0.6, maximum=None, bound='value'),)
    """
    return policy_from(values).gates


def gates_digest(gates: Sequence[Gate]) -> str:
    """What identifies a list of gates: an evaluation under other gates is another evaluation."""
    return digest_of([gate.to_json() for gate in gates])


def gates_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a policy file, for editors and CI.

    >>> gates_schema()["title"]
    'Policy'
    """
    from pydantic import TypeAdapter

    kinds: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for kind, cls in GATES.items():
        one: dict[str, Any] = TypeAdapter(cls).json_schema()
        shared |= one.pop("$defs", {})
        if issubclass(cls, MetricGate):
            one["properties"]["metric"]["enum"] = list(METRICS)
        one["properties"] = {"gate": {"const": kind}, **one.get("properties", {})}
        one["required"] = ["gate", *one.get("required", [])]
        one["additionalProperties"] = False
        one["description"] = (cls.__doc__ or "").strip().partition("\n")[0]
        kinds.append(one)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy",
        "description": "Gates that a model version must pass before it may be promoted.",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "gates": {"type": "array", "minItems": 1, "items": {"oneOf": kinds}},
        },
        "required": ["gates"],
        "additionalProperties": False,
        "$defs": shared,
    }


def _content(value: Any) -> tuple[Any, str, str | None]:
    """What a policy says, a prefix for errors that names its place, and the name it has by its place."""
    if callable(value) and not isinstance(value, str | Gate):
        reference = reference_of(value)
    elif isinstance(value, str | Path):
        text = str(value).strip()
        if not text:
            raise ArgumentError(
                "the policy has no name", code="argument.empty",
                why="a template rendered to nothing, or none was given", todo=FORMS,
            )  # fmt: skip
        if text.lower().endswith(FILE_SUFFIXES):
            path = Path(text)
            return _read(path), f"{path}: ", path.stem
        reference = text
    else:
        return value, "", None
    content = _call(resolve_callable(value if callable(value) else reference), reference)
    return content, f"{reference}: ", reference.rpartition(":")[2]


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(
            f"the policy {path} cannot be read", code="argument.policy_missing", why=type(error).__name__,
            todo="check the path, and that the file is on this machine",
        ) from None  # fmt: skip
    import yaml

    try:
        if path.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_without_twins)
        return yaml.load(text, Loader=_strict_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _not_a_policy(f"{path}: ", f"{where}{getattr(error, 'problem', None) or 'no YAML'}") from None
    except ValueError as error:
        raise _not_a_policy(f"{path}: ", str(error)) from None


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key!r} is there twice")
        made[key] = value
    return made


def _strict_loader() -> Any:
    """A safe loader that refuses a key given twice: of two limits YAML would keep the last in silence."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                scalar = isinstance(key, yaml.ScalarNode)
                problem = f"the key {key.value!r} is there twice" if scalar else "a key is no text"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        loader.flatten_mapping(node)
        made: dict[Any, Any] = loader.construct_mapping(node, deep=True)
        return made

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return Loader


def _call(function: Callable[..., Any], reference: str) -> Any:
    try:
        return function()
    except XOpsError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"the policy {reference} raised a {type(error).__name__}", code="user_code.raised",
            why=str(error), todo="correct the function; it takes no arguments and gives a policy",
        ) from error  # fmt: skip


def _gate(value: Any, place: str) -> Gate:
    if isinstance(value, Gate):
        return value
    kind = value.get("gate") if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping) or not isinstance(kind, str) or kind not in GATES:
        raise _unknown(f"{place}unknown gate", [kind], GATES, after="")
    cls = GATES[str(kind)]
    fields = {key: item for key, item in value.items() if key != "gate"}
    known = [each.name for each in dataclasses.fields(cls)]
    unknown = [key for key in fields if key not in known]
    if unknown:
        raise _unknown(f"{place}gate {kind} has no field", unknown, known)
    needed = [
        each.name
        for each in dataclasses.fields(cls)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in fields]
    if missing:
        raise ArgumentError(
            f"{place}gate {kind} names no {', '.join(missing)}", code="argument.gate",
            todo=f"it needs {', '.join(needed)}; it takes {', '.join(known)}",
        )  # fmt: skip
    return _made(cls, fields, f"{place}gate {kind}")


def _made(cls: type[Gate], fields: Mapping[str, Any], place: str) -> Gate:
    from pydantic import TypeAdapter, ValidationError

    try:
        # Strict as JSON: "0.6" is no number and true is none either, but a list may stand for a tuple.
        text = json.dumps(dict(fields), allow_nan=False)
        made: Gate = TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ArgumentError(
            f"{place}: {field}: {first['msg']}", code="argument.gate", todo=f"correct {field or 'the gate'}"
        ) from None
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{place} holds something that is no plain value", code="argument.gate",
            why="NaN, infinity, a date or an object has no JSON form", todo="give plain numbers and texts",
        ) from None  # fmt: skip
    except ArgumentError as error:
        prefix = place.rpartition("gate ")[0]
        raise ArgumentError(
            f"{prefix}{error.what}", code=error.code, why=error.why, todo=error.todo
        ) from None
    return made


def _unknown(
    what: str, names: Sequence[Any], known: Iterable[str], *, code: str = "argument.gate", after: str = ""
) -> ArgumentError:
    known = list(known)
    close = [
        match for name in names if isinstance(name, str)
        for match in difflib.get_close_matches(name, known, n=1)
    ]  # fmt: skip
    meant = f"did you mean {', '.join(close)}? " if close else ""
    shown = ", ".join(repr(name)[:60] for name in names)
    return ArgumentError(
        f"{what} {shown}{after}", code=code, todo=f"{meant}the known ones: {', '.join(known)}"
    )


def _not_a_policy(place: str, why: str) -> ArgumentError:
    return ArgumentError(f"{place}this is no policy", code="argument.policy", why=why, todo=FORMS)
