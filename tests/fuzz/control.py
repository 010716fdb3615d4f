"""What the operator reads of others: pods' last words, their progress, Prometheus, objects that were edited by hand.

Whatever comes in, a pass ends, and the status that it would write is one that the API server takes: one that is refused
would be refused at every pass, and the update would never end.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

from jsonschema import Draft202012Validator

from skill_contract.evaluation import Action, Alarm, Signature
from skill_contract.model import ContractError
from skill_contract.outcome import MAX_BYTES, Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import Step
from skill_operator.api import ROLLBACK_ANNOTATION, to_rfc3339
from skill_operator.prometheus import one_value, parse_answer
from skill_operator.status import Rollback, RollbackNote
from skill_operator.trainer_client import by_our_clock
from tests.api.crd import STATUS
from tests.fuzz.target import Target, said
from tests.operator import raw
from tests.operator.sim import Sim

Raw = dict[str, Any]
S = TypeVar("S", bound=Sim)
_TIMES = r"^\d{4}-(0[1-9]|1[0-2])-([0-2]\d|3[01])[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[-+]\d\d:\d\d)$"


def _strict(schema: Raw) -> Raw:
    """Returns a part of the CRD as a JSON Schema that refuses what the API server would refuse of a status."""
    strict = {
        key: schema[key] for key in ("type", "enum", "maxLength", "minLength", "maxItems", "minimum") if key in schema
    }
    if schema.get("type") == "object":
        strict["required"] = schema.get("required", [])
        strict["properties"] = {name: _strict(each) for name, each in schema.get("properties", {}).items()}
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits:
        strict |= {"minimum": max(-(2**bits), schema.get("minimum", -(2**bits))), "maximum": 2**bits - 1}
    if schema.get("format") == "date-time":
        strict["pattern"] = _TIMES
    return strict


_STATUS = Draft202012Validator(_strict(STATUS))


def _doubles(schema: Raw, value: Any, path: str = "") -> Iterator[str]:
    """Yields the places of lists whose items have the same key twice."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys and len({tuple(str(item.get(key)) for key in keys) for item in value}) < len(value):
        yield path
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _doubles(schema.get("properties", {}).get(name, {}), each, f"{path}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from _doubles(schema.get("items", {}), each, path)


def require_writable(status: Raw) -> None:
    """Fails where the API server would refuse a status."""
    json.dumps(status, allow_nan=False).encode()
    problem = next(_STATUS.iter_errors(status), None)
    assert problem is None, (
        f"the API server refuses status.{'.'.join(map(str, problem.absolute_path))}: {problem.message:.200}"
    )
    doubles = list(_doubles(STATUS, status))
    assert not doubles, f"the API server refuses doubles in status{doubles[0]}"


@cache
def _at(bring: str) -> Sim:
    sim = Sim(raw.update(serving=bring != "alone"), raw.deployment(weights=raw.PREVIOUS) if bring != "alone" else None)
    {
        "check": sim.settle,
        "alone": sim.until_published,
        "train": lambda: (
            sim.settle(),
            sim.finish("check"),
            sim.settle(),
            sim.pod("train", raw.running()),
            sim.settle(),
        ),
        "roll": sim.until_published,
        "soak": sim.until_rolled,
        "promote": sim.until_promoting,
        "done": sim.until_done,
    }[bring]()
    return sim


def _copied(bring: str) -> Sim:
    """Returns a world of its own at some phase."""
    return copied(_at(bring))


def copied(whole: S) -> S:
    """Returns a world of its own that is as `whole`."""
    sim = copy.copy(whole)
    sim.body, sim.jobs, sim.pods = copy.deepcopy(sim.body), copy.deepcopy(sim.jobs), copy.deepcopy(sim.pods)
    sim.deployment, sim.serving = copy.deepcopy(sim.deployment), copy.deepcopy(sim.serving)
    sim.done, sim.phases, sim.shown = [], [], []
    return sim


def passes(sim: Sim) -> str:
    """Makes two passes, and returns what a person then reads."""
    for _ in range(2):
        sim.look()
        require_writable(sim.body["status"])
    ready = sim.status.condition("Ready")
    assert ready is not None
    return f"{sim.status.phase} {ready.reason}"


# -- termination messages ---------------------------------------------------------------------------------------------


def _last_words() -> list[bytes]:
    outcomes = [
        raw.outcome(Step.CHECK),
        raw.outcome(Step.TRAIN),
        raw.outcome(Step.TRAIN, Result.REJECTED, "SkillForgotten"),
        raw.outcome(Step.PROMOTE),
    ]
    words = [outcome.dump_json() for outcome in outcomes] + [
        raw.fetched(raw.CANDIDATE, raw.CHILD[1]),
        raw.fetch_failed("NoSpace"),
    ]
    return [number.to_bytes(1, "big") + b"\0" + word.encode() for number, word in enumerate(words)]


def read_last_word(data: bytes) -> str:
    """A pod of a step, or the fetch of a serving pod, has left `data`; the kubelet passes on 4096 bytes, as text."""
    number, text = data[:1], data[2:][:MAX_BYTES].decode(errors="replace").replace("\0", "")
    which = (number or b"\0")[0] % 6
    if which >= 4:
        sim = _copied("roll")
        sim.roll(message=text, fetch_code=which - 4, ready=which == 4)
        return passes(sim)
    step = ("check", "train", "train", "promote")[which]
    sim = _copied(step)
    sim.finish(step, keep_pod=False)
    status = raw.ended(0, text, at=sim.now)
    if which == 2:
        sim.fail(step, raw.ended(42, text, at=sim.now))
    else:
        sim.pod(step, status)
    return passes(sim)


# -- progress ----------------------------------------------------------------------------------------------------------


def _progresses() -> list[bytes]:
    alarm = Alarm(signature=Signature.ENTROPY_COLLAPSE, step=12, action=Action.MARK, message="it falls")
    full = Progress(
        stage=Stage.TRAINING,
        step=12,
        total=48,
        eta_seconds=120.5,
        loss=0.25,
        divergence=0.1,
        tokens_per_second=1200.0,
        last_checkpoint=8,
        scores={"probe_new_skill": 0.5},
        alarms=(alarm,),
        heartbeat=raw.NOW,
    )
    dates = [b"Wed, 08 Oct 2025 08:53:20 GMT", b"", b"Mon, 01 Jan 0001 00:00:00 -0000"]
    return [
        date + b"\0" + text.encode()
        for date in dates
        for text in (full.dump_json(), '{"stage":"Loading","heartbeat":1}')
    ]


def read_progress(data: bytes) -> str:
    """A trainer pod answers GET /progress with `data`, whose first part is the header Date."""
    date, _, body = data.partition(b"\0")
    sim = _copied("train")
    try:
        progress = Progress.parse_json(body[: 64 * 1024])
    except ContractError as error:
        return said(error)
    sim.progress = by_our_clock(progress, date.decode("latin-1"), raw.NOW)
    passes(sim)
    return ""


# -- Prometheus --------------------------------------------------------------------------------------------------------

_ANSWERS = (
    '{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1760000000.1,"0.25"]}]}}',
    '{"status":"success","data":{"resultType":"scalar","result":[1760000000.1,"3"]}}',
    '{"status":"success","data":{"resultType":"vector","result":[]}}',
    '{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}}',
    '{"status":"error","errorType":"bad_data","error":"parse error: unexpected character"}',
)


def read_answer(data: bytes) -> str:
    """Prometheus, or what answers in its place, says `data`."""
    try:
        value, problem = one_value(parse_answer(data))
    except ValueError as error:
        return said(error)
    assert (value is None) == bool(problem)
    assert len(problem) <= 1000, f"a problem of {len(problem)} characters"
    assert value is None or -1.8e308 < value < 1.8e308
    json.dumps([value, problem]).encode()
    return problem


# -- objects edited by hand --------------------------------------------------------------------------------------------

_PHASES = ("check", "train", "alone", "roll", "soak", "promote", "done")
_WISHES = ("", "revert", "suspend", "approved")


def _statuses() -> list[bytes]:
    return [
        f"{name} {wish}".encode() + b"\0" + json.dumps(_at(name).body["status"]).encode()
        for name in _PHASES
        for wish in _WISHES
        if name != "alone" or wish != "revert"
    ]


def read_status(data: bytes) -> str:
    """Somebody has edited a status, as far as the API server let them."""
    head, _, text = data.partition(b"\0")
    name, _, wish = head.decode(errors="replace").partition(" ")
    try:
        status = json.loads(text)
        require_writable(status)
    except (ValueError, RecursionError, AssertionError, AttributeError, TypeError):
        return "refused by the API server"
    sim = _copied(name if name in _PHASES else "roll")
    if wish in _WISHES[1:] and name != "alone":
        sim.body["spec"][wish] = True
    sim.body["status"] = status
    passes(sim)
    return ""


def _metadata() -> list[bytes]:
    sim = _at("train")
    rollback = Rollback(
        reason="EngineCrash", message="it died", started_at=to_rfc3339(raw.NOW), deadline=to_rfc3339(raw.NOW)
    )
    note = RollbackNote(uid=raw.UID, rollback=rollback).dump_json()
    parts = (
        sim.job("train")["metadata"],
        sim.pods[-1]["metadata"],
        _at("soak").serving[0]["metadata"],
        {"annotations": {ROLLBACK_ANNOTATION: note}},
    )
    shown = [{key: part.get(key, {}) for key in ("labels", "annotations")} for part in parts]
    return [bytes([number]) + b"\0" + json.dumps(part).encode() for number, part in enumerate(shown)]


def read_metadata(data: bytes) -> str:
    """Somebody has edited labels and annotations of a Job, a pod of it, a serving pod, or the update."""
    try:
        edited = json.loads(data[2:])
        pairs = {
            part: {str(key): _text(value) for key, value in edited[part].items()} for part in ("labels", "annotations")
        }
        json.dumps(pairs, ensure_ascii=False).encode()
    except (ValueError, RecursionError, LookupError, AttributeError, TypeError):
        return "refused by the API server"
    which = data[0] % 4
    sim = _copied(("train", "train", "soak", "roll")[which])
    subjects: tuple[Callable[[], Raw], ...] = (
        lambda: sim.job("train"),
        lambda: sim.pods[-1],
        lambda: sim.serving[0],
        lambda: sim.body,
    )
    subjects[which]()["metadata"] |= pairs
    return passes(sim)


def _text(value: Any) -> str:
    """Returns what somebody would write for a value: documents in annotations are text."""
    return value if isinstance(value, str) else json.dumps(value)


TARGETS = (
    Target("last-words", "termination messages of a step's pods and of the fetch", _last_words, read_last_word, 0.05),
    Target("progress", "answers of a trainer pod to GET /progress, with their Date", _progresses, read_progress, 0.2),
    Target(
        "prometheus", "answers of Prometheus to a query", lambda: [each.encode() for each in _ANSWERS], read_answer, 2.0
    ),
    Target("status", "a SkillUpdate's status that was edited by hand", _statuses, read_status, 0.2),
    Target("metadata", "labels and annotations that were edited by hand", _metadata, read_metadata, 0.1),
)
