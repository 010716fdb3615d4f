"""The CRD and the contract's pydantic documents say the same: names, kinds, defaults, choices and bounds, both ways."""

from collections.abc import Iterator
from enum import StrEnum
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import annotated_types
import pytest
from pydantic.fields import FieldInfo

from skill_contract.model import ContractError, Document
from skill_contract.progress import Progress
from skill_contract.spec import SkillUpdateSpec
from skill_operator.api import MILESTONES, Phase
from skill_operator.status import Status
from tests.api.conftest import Api
from tests.api.crd import SPEC, STATUS, example, put, update_files, updates_in, walk

KINDS = {str: "string", int: "integer", float: "string", bool: "boolean"}
KUBERNETES_TYPED = ("training.resources", "training.template")  # plain dicts in the contract, handed on as they are


def fields(model: type[Document], path: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Yields every field below a document: dotted JSON path, the field, its type without None."""
    for info in model.model_fields.values():
        here = f"{path}.{info.alias}" if path else str(info.alias)
        kind = bare(info.annotation)
        yield here, info, kind
        if get_origin(kind) is tuple and is_document(get_args(kind)[0]):
            yield from fields(get_args(kind)[0], f"{here}[]")
        elif is_document(kind):
            yield from fields(kind, here)


def bare(kind: Any) -> Any:
    options = [option for option in get_args(kind) if option is not NoneType]
    return options[0] if NoneType in get_args(kind) else kind


def is_document(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Document)


def choices(kind: Any) -> list[str] | None:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [member.value for member in kind] if isinstance(kind, type) and issubclass(kind, StrEnum) else None


def bound(info: FieldInfo, kind: type, name: str) -> Any:
    return next((getattr(entry, name) for entry in info.metadata if isinstance(entry, kind)), None)


CONTRACT = {path: (info, kind) for path, info, kind in fields(SkillUpdateSpec)}
SCHEMA = {path: schema for path, schema in walk(SPEC) if not path.startswith(tuple(f"{p}." for p in KUBERNETES_TYPED))}
EACH = pytest.mark.parametrize("path", sorted(SCHEMA.keys() & CONTRACT.keys()))
DECIMALS = [path for path, (_, kind) in CONTRACT.items() if kind is float]


def test_both_have_the_same_fields():
    assert SCHEMA.keys() == CONTRACT.keys()


@EACH
def test_kind(path):
    kind = CONTRACT[path][1]
    if get_origin(kind) is tuple:
        assert SCHEMA[path]["type"] == "array"
    elif is_document(kind) or get_origin(kind) is dict:
        assert SCHEMA[path]["type"] == "object"
    else:
        assert SCHEMA[path]["type"] == ("string" if choices(kind) else KINDS[kind])


@EACH
def test_choices(path):
    assert SCHEMA[path].get("enum") == choices(CONTRACT[path][1])


@EACH
def test_default(path):
    info, kind = CONTRACT[path]
    default, expected = SCHEMA[path].get("default"), info.get_default(call_default_factory=True)
    if info.is_required() or expected is None:
        assert default is None
    elif is_document(kind):
        assert default == {}
    elif kind is float:
        assert float(default) == expected
    else:
        assert default == (list(expected) if isinstance(expected, tuple) else expected)


@EACH
def test_required(path):
    *parents, name = path.removesuffix("[]").split(".")
    holder = SPEC
    for parent in parents:
        holder = holder["properties"][parent.removesuffix("[]")]
        holder = holder["items"] if parent.endswith("[]") else holder
    assert (name in holder.get("required", [])) == CONTRACT[path][0].is_required()


@EACH
def test_bounds_of_integers(path):
    info, kind = CONTRACT[path]
    if kind is not float:
        assert SCHEMA[path].get("minimum") == bound(info, annotated_types.Ge, "ge")
        assert SCHEMA[path].get("maximum") == bound(info, annotated_types.Le, "le")


@pytest.mark.api
@pytest.mark.parametrize("path", DECIMALS)
@pytest.mark.parametrize("value", ["0", "1e-9", "0.999", "1", "1.001", "25", "1e-5", "0.5E1", "-0.1", "-1", "x", ""])
def test_bounds_of_decimals(judge: Api, path, value):
    """The server takes a decimal exactly where the contract does."""
    update = put(example("full"), f"spec.{path}", value)
    try:
        SkillUpdateSpec.parse(update["spec"])
        expected = 201
    except ContractError:
        expected = 422
    assert judge.create(update).status_code == expected


@pytest.mark.api
@pytest.mark.parametrize("path", update_files(), ids=lambda path: path.stem)
def test_what_the_server_stores_is_what_the_contract_reads(judge: Api, path):
    """Defaults filled in by the server and by the contract give the same update."""
    for update in updates_in(path):
        update["metadata"].pop("namespace", None)
        stored = judge.created(update)["spec"]
        assert SkillUpdateSpec.parse(stored) == SkillUpdateSpec.parse(update["spec"])


@pytest.mark.api
def test_defaults_are_filled_in_by_the_server(api: Api):
    stored = api.created(example("publish-only"))["spec"]
    defaults = SkillUpdateSpec.parse(example("publish-only")["spec"]).dump()
    assert stored.keys() == defaults.keys()
    # Without a learning rate, whose default depends on the adaptation: the contract fills it in.
    assert stored["method"]["optimizer"] == {"schedule": "Cosine", "warmupSteps": 10, "maxGradNorm": "1"}
    assert stored["gates"]["inContextGain"] == {"mode": "Enforce", "minGain": "0.05"}
    assert stored["training"]["failurePolicy"] == {"maxRestarts": 3, "heartbeatTimeoutSeconds": 900}
    assert "serving" not in stored


def test_status_has_the_fields_that_the_operator_writes():
    written = {path for path, _, _ in fields(Status)}
    assert {path for path, _ in walk(STATUS)} == written


def test_the_words_of_phase_and_conditions_are_explained():
    described = {name: STATUS["properties"][name]["description"] for name in ("phase", "conditions")}
    assert not [phase for phase in Phase if phase not in described["phase"]]
    assert not [kind for kind in MILESTONES if kind not in described["conditions"]]


def test_status_shows_the_progress_that_the_trainer_reports():
    shown = STATUS["properties"]["training"]["properties"].keys()
    renamed = {"total": "totalSteps", "lastCheckpoint": "lastCheckpointStep", "heartbeat": "heartbeatTime"}
    reported = {renamed.get(info.alias or "", info.alias) for info in Progress.model_fields.values()}
    assert reported - shown == {"divergence", "scores", "alarms"}  # in the trainer's own metrics; status.evaluation
