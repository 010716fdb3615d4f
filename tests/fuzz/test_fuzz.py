"""A slice of the fuzzing, the same inputs each time, and every defect that fuzzing has found (docs/security.md)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from skill_contract.manifest import digest_of
from skill_store.catalogue import Catalogue
from tests.fuzz.bench import Bench
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import plain
from tests.operator import raw

QUICK = [name for name in TARGETS if name != "templates"]
"""Those that need no transformers, whose import would take longer than all others together."""


@pytest.mark.parametrize("name", QUICK)
def test_a_slice(name: str):
    target = TARGETS[name]
    bench = plain(Bench(target), inputs=max(80, int(400 * min(target.share, 1))), seconds=60, seed=7)
    assert bench.defects == {}
    assert bench.errors | ({"taken"} if bench.accepted else set()), "it says of nothing that it is wrong or right"


@pytest.mark.trainer
def test_a_slice_of_templates():
    bench = plain(Bench(TARGETS["templates"]), inputs=200, seconds=60, seed=7)
    assert bench.defects == {}
    assert bench.accepted
    assert len(bench.errors) > 3


def test_the_seeds_are_documents_that_are_taken():
    """Mutations of what is refused anyway would find nothing."""
    for name in (
        *("data", "documents", "engine", "prometheus", "journal", "safetensors", "status"),
        *("object-store", "http", "agent", "questions"),
    ):
        target = TARGETS[name]
        assert "" in {target.read(seed) for seed in target.seeds()}, name


def _status(phase: str, **changes: object) -> bytes:
    (seed,) = (each for each in TARGETS["status"].seeds() if each.startswith(f"{phase} \0".encode()))
    status = json.loads(seed.partition(b"\0")[2])
    kept = {key: value for key, value in (status | changes).items() if value is not None}
    return f"{phase} \0".encode() + json.dumps(kept).encode()


def _outcome(**changes: object) -> bytes:
    """The last word of a trainer that succeeded, changed."""
    return b"\x01\0" + json.dumps(raw.outcome(raw.Step.TRAIN).dump() | changes).encode()


def _progress(**changes: object) -> bytes:
    return b"\0" + json.dumps({"stage": "Training", "heartbeat": raw.NOW} | changes).encode()


def _manifest(**changes: object) -> bytes:
    """A version's manifest with one file, changed."""
    file = {"path": "config.json", "size": 1, "sha256": "a" * 64} | changes
    return b"manifest\0" + json.dumps({"files": [file], "sequence": 42}).encode()


def _note(**changes: str) -> bytes:
    """The update's own annotation about a rollback, which its author may edit."""
    time = "2026-01-01T00:00:00Z"
    rollback = {"reason": "EngineCrash", "message": "", "startedAt": time, "deadline": time} | changes
    note = json.dumps({"uid": raw.UID, "rollback": rollback})
    return b"\x03\0" + json.dumps({"labels": {}, "annotations": {"sdft.dev/rollback": note}}).encode()


def _labels(kind: int, **labels: str) -> bytes:
    return bytes([kind]) + b"\0" + json.dumps({"labels": labels, "annotations": {}}).encode()


_SUITE = raw.evaluation().dump()["newSkill"]
_JOURNAL = hashlib.sha256(b"0123456789" * 20).hexdigest().encode()
FOUND_BEFORE: dict[str, tuple[str, bytes]] = {
    # a step's pod, or who pretends to be one: a status that the API server refuses, at every pass
    "a suite twice": ("last-words", _outcome(evaluation={"verdict": "Passed", "retention": [_SUITE, _SUITE]})),
    "a count beyond int32": (
        "last-words",
        _outcome(evaluation={"verdict": "Passed", "newSkill": _SUITE | {"n": 2**31}}),
    ),
    "a suite with a long name": (
        "last-words",
        _outcome(evaluation={"verdict": "Passed", "newSkill": _SUITE | {"suite": "a" * 64}}),
    ),
    "a version that leads elsewhere": ("last-words", _outcome(version="../../other/versions/000001-aaaaaaaaaaaa")),
    "a success without a version": ("last-words", _outcome(version="", digest="")),
    "a check that rejects": (
        "last-words",
        b"\x00\0" + json.dumps(raw.outcome(raw.Step.CHECK, raw.Result.REJECTED, "No").dump()).encode(),
    ),
    "a heartbeat after the year 9999": ("progress", _progress(heartbeat=1e300)),
    "a heartbeat moved beyond it": ("progress", b"Mon, 01 Jan 0001 00:00:00 GMT" + _progress(heartbeat=253402300799)),
    "a Date before all time": ("progress", b"Mon, 01 Jan 0001 00:00:00 -0000" + _progress()),
    "a step beyond int32": ("progress", _progress(step=2**40)),
    "a loss that rounds to infinity": ("progress", _progress(loss=1.7976931348623157e308)),
    "a run that is no number": ("metadata", _labels(0, **{"sdft.dev/run": "x", "sdft.dev/step": "train"})),
    "an index that is no number": ("metadata", _labels(1, **{"batch.kubernetes.io/job-completion-index": "1e9"})),
    "a note of a rollback at no time": ("metadata", _note(startedAt="soon")),
    "a note of a rollback in year 0": ("metadata", _note(startedAt="0000-01-01T00:00:00Z")),
    "a note of a rollback without end": ("metadata", _note(reason="x" * 2000)),
    # what answers in place of Prometheus, or of an engine
    "no result": ("prometheus", b'{"status":"success","data":{}}'),
    "a result of another form": ("prometheus", b'{"status":"success","data":{"resultType":"vector","result":[7]}}'),
    "a kind that is a list": ("prometheus", b'{"status":"success","data":{"resultType":[],"result":[]}}'),
    "deeper than a recursion": ("prometheus", b"[" * 200_000),
    "an error without end": ("prometheus", b'{"status":"error","error":"' + b"x" * 20_000 + b'"}'),
    "content that is a list": ("engine", b'{"choices":[{"message":{"content":[1]}}]}'),
    "a log-probability that is none": (
        "engine",
        b'{"choices":[{"message":{"content":"4"},"logprobs":{"content":[{"logprob":NaN}]}}]}',
    ),
    "a log-probability in words": (
        "engine",
        b'{"choices":[{"message":{"content":"4"},"logprobs":{"content":[{"logprob":"none"}]}}]}',
    ),
    "a place that is none": ("http", b"models 301\r\nLocation: x:a\r\n\r\n"),
    "models that are numbers": ("http", b'models 200\r\n\r\n{"data":[7]}'),
    "models without end": ("http", b"models 200\r\n\r\n" + b"[" * 200_000),
    "a question without end": ("questions", b"[" * 200_000),
    # what answers in place of an object store
    "no etag": ("object-store", b"get 200\r\nContent-Length: 4\r\n\r\ntext"),
    "a length in words": ("object-store", b"read 206\r\nContent-Length: four\r\n\r\ntext"),
    "a sum that is none": ("object-store", b'get 200\r\nETag: "a"\r\nx-amz-checksum-crc32: O6v\xb2\r\n\r\ntext'),
    "a listing that is a page": ("object-store", b"list 200\r\n\r\n<html>log in"),
    "a listing of text": ("object-store", b"list 200\r\n\r\n<a><Contents>x</Contents></a>"),
    "a time that is none": (
        "object-store",
        b"list 200\r\n\r\n<a><Contents><Key>k</Key><Size>1</Size><LastModified>soon</LastModified></Contents></a>",
    ),
    "elsewhere, without end": ("object-store", b"get 301\r\n\r\n<Error><Code>PermanentRedirect</Code></Error>"),
    # who may write to the bucket, or to a cache that pods share
    "a digest that is a path": ("repository", _manifest(sha256="../../../../weights/config.json")),
    "a size below nothing": ("repository", _manifest(size=-1)),
    "a file in the manifest's place": ("repository", _manifest(path=".skill/manifest.json")),
    "a file that is a landing's": ("repository", _manifest(path="model.safetensors.partial")),
    "a head with a zero byte": (
        "repository",
        b'head\0{"version":"a\\u0000b","digest":"' + digest_of(b"").encode() + b'"}',
    ),
    "a head that leads elsewhere": (
        "repository",
        b'head\0{"version":"../../x","digest":"' + digest_of(b"").encode() + b'"}',
    ),
    "a tombstone cut off": ("repository", b'tombstone\0{"removed":"2026-01-01'),
    "an origin without end": ("repository", b"origin\0" + b"[" * 200_000),
    "a journal of words": ("journal", _JOURNAL + b"\na b\n\0"),
    "a journal of ranges outside": ("journal", _JOURNAL + b"\n0 1001\n-5 10\n\0"),
    # authors of updates and makers of models
    "half an IPv6 address": ("addresses", b"s3://[::1/x"),
    "a newline in a path": ("addresses", b"file:///skills/.\n./secret"),
    "an address without end": ("addresses", b"s3://a/versions/" + b"x" * 16_000),
    "a zero byte in a path": ("addresses", b"file:///skills/%00"),
    "a pattern that is none": ("graders", b"regex\0(\0x"),
    "a header of 16 exbibytes": ("safetensors", b"\xff" * 8 + b"{}"),
    "a header that is a list": ("safetensors", (2).to_bytes(8, "little") + b"[]"),
    # whoever may write a status
    "published without a parent": ("status", _status("roll", parent=None)),
    "a rollout without a version": ("status", _status("soak", published=None)),
    "published under a path": (
        "status",
        _status("promote", published={"version": "../x", "digest": "y", "uri": "s3://z"}),
    ),
    "judged without a judgement": (
        "status",
        _status(
            "promote",
            conditions=[
                each
                for each in json.loads(_status("promote").partition(b"\0")[2])["conditions"]
                if each["type"] != "Evaluated"
            ],
        ),
    ),
}


@pytest.mark.parametrize(("name", "data"), FOUND_BEFORE.values(), ids=list(FOUND_BEFORE))
def test_what_was_found_stays_mended(name: str, data: bytes):
    TARGETS[name].read(data)


@pytest.mark.trainer
@pytest.mark.parametrize("template", ["{{ 1 // 0 }}", "{{ messages + 1 }}", "{{ 'x' * 10 ** 30 }}"])
def test_what_templates_did_stays_mended(template: str):
    assert "TemplateError" in TARGETS["templates"].read(template.encode())


def test_a_defect_is_found_and_told():
    def read(data: bytes) -> str:
        if b"\xff" in data:
            raise KeyError(data)
        return "refused"

    bench = plain(Bench(Target("x", "", lambda: [b"abc"], read)), inputs=2000, seconds=30, seed=1)
    (kind,) = bench.defects
    assert kind.startswith("KeyError at test_fuzz.py:")
    assert bench.errors == {"refused"}


def test_a_folder_with_a_strange_name_among_versions_is_told_and_left(tmp_path: Path):
    for name in ("latest", "000001-..", "000001-abcdefabcdef"):
        (tmp_path / "versions" / name / ".skill").mkdir(parents=True)
        (tmp_path / "versions" / name / ".skill" / "manifest.json").write_bytes(b'{"files":[],"sequence":1}')
    damages = {version.name: version.damage for version in Catalogue.read(str(tmp_path)).versions.values()}
    assert set(damages) == {"latest", "000001-..", "000001-abcdefabcdef"}
    assert all(damages.values())
