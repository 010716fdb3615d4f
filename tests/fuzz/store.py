"""What steps read of buckets and engines: documents, heads, manifests, journals of downloads, addresses, answers."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from skill_contract.manifest import FetchMessage, File, Golden, GoldenSet, Manifest, VersionRef, digest_of, version_name
from skill_contract.model import ContractError, Document
from skill_contract.outcome import Outcome
from skill_contract.progress import Progress
from skill_contract.step import PromoteConfig, TrainConfig, UpdateIdentity
from skill_store import layout
from skill_store.catalogue import Catalogue
from skill_store.errors import StoreError
from skill_store.landing import PARTIAL, PARTS, Landing
from skill_store.objects import split_uri
from skill_store.proof import judge
from skill_store.prove import EngineRefused, chat_answer
from skill_store.repository import Head, Repository
from skill_store.runs import CheckpointManifest
from skill_store.tombstone import Tombstone
from tests.fuzz.target import Target, said
from tests.operator import raw

_DIGEST, _SHA = "sha256:" + "a" * 64, "b" * 64
_REF = VersionRef(version="000041-aaaaaaaaaaaa", digest=_DIGEST)
_UPDATE = UpdateIdentity(namespace="team", name="refund-tool", uid=raw.UID)
_FILES = (File(path="config.json", size=12, sha256=_SHA), File(path=".skill/suites/a.jsonl", size=3, sha256=_SHA))
_MANIFEST = Manifest(
    files=_FILES,
    sequence=42,
    parent=_REF,
    skill="a",
    skills=("a",),
    update=_UPDATE,
    method={"type": "SDFT"},
    evaluation=raw.evaluation(),
    seed=17,
    created="2026-01-01T00:00:00+00:00",
)
_PROMPT = Golden(
    messages=({"role": "user", "content": "2+2?"},), text="4", parent_text="5", token_logprobs=(-0.1,), max_new_tokens=4
)
_CONFIG = {
    "update": _UPDATE.dump(),
    "model": {"uri": "s3://m"},
    "skill": {"name": "a"},
    "data": {
        "train": "s3://a/b.jsonl",
        "heldOut": {"uri": "s3://a/c.jsonl", "grader": "json"},
        "rehearsal": {"uris": ["s3://a/d.jsonl"]},
    },
    "method": {"adaptation": {"type": "LoRA", "lora": {"rank": 8}}, "optimizer": {"learningRate": "1e-4"}},
}
_DOCUMENTS: tuple[tuple[type[Document], Any], ...] = (
    (Manifest, _MANIFEST.dump()),
    (Outcome, None),
    (Progress, {"stage": "Training", "heartbeat": 1.5, "loss": 0.1, "scores": {"a": 1}}),
    (FetchMessage, {"outcome": "Fetched", "uri": "s3://m/versions/x", "sizeBytes": 5, "seconds": 0.1}),
    (GoldenSet, GoldenSet(prompts=(_PROMPT,)).dump()),
    (TrainConfig, _CONFIG),
    (
        PromoteConfig,
        {
            "update": _UPDATE.dump(),
            "modelUri": "s3://m",
            "version": "v",
            "digest": "d",
            "parentDigest": "e",
            "pods": [{"name": "p", "url": "http://10.0.0.1:8000"}],
            "retention": {"keepVersions": 3, "inUse": ["v"]},
        },
    ),
    (Head, {"version": _REF.version, "digest": _DIGEST, "update": _UPDATE.dump(), "time": "2026-01-01T00:00:00+00:00"}),
    (Tombstone, {"removed": "2026-01-01", "by": "x", "manifest": "{}", "done": True}),
    (CheckpointManifest, {"step": 50, "files": [{"path": "state.json", "size": 3, "sha256": _SHA}]}),
)


def _documents() -> list[bytes]:
    last = raw.outcome(raw.Step.TRAIN).dump()
    return [
        bytes([number]) + b"\0" + json.dumps(example or last).encode() for number, (_, example) in enumerate(_DOCUMENTS)
    ]


def read_document(data: bytes) -> str:
    """Any document of the contract, from a pod, a bucket or an environment variable."""
    kind, _ = _DOCUMENTS[(data or b"\0")[0] % len(_DOCUMENTS)]
    try:
        document = kind.parse_json(data[2:])
    except ContractError as error:
        return said(error)
    assert kind.parse_json(document.dump_json()) == document
    return ""


# -- repositories ------------------------------------------------------------------------------------------------------


@cache
def _repository() -> Path:
    """Returns a folder that is a repository at the time of an input, until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data = _MANIFEST.encode()
    ref = VersionRef(version=version_name(42, digest_of(data)), digest=digest_of(data))
    manifest = folder / layout.version_folder(ref.version) / layout.MANIFEST
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(data)
    run = folder / layout.checkpoint_folder(raw.UID, 50) / layout.MANIFEST
    run.parent.mkdir(parents=True)
    run.write_bytes(b"{}")
    (folder / layout.HEAD).write_text(Head(version=ref.version, digest=ref.digest).dump_json())
    return folder


_PLACES = ("head", "manifest", "tombstone", "checkpoint", "origin")


def _objects() -> list[bytes]:
    head = (_repository() / layout.HEAD).read_bytes()
    tombstone = Tombstone(removed="2026-01-01", by="x", why="old", manifest=_MANIFEST.encode().decode()).encode()
    checkpoint = CheckpointManifest(step=50, files=_FILES).dump_json().encode()
    origin = json.dumps({"parent": _REF.dump()}).encode()
    found = [head, _MANIFEST.encode(), tombstone, checkpoint, origin]
    return [name.encode() + b"\0" + each for name, each in zip(_PLACES, found, strict=True)]


def read_object(data: bytes) -> str:
    """Somebody who may write to the bucket has put `data` in a document's place, by the digest that is asked for."""
    name, _, text = data.partition(b"\0")
    folder = _repository()
    place = name.decode(errors="replace")
    if place == "checkpoint":
        (folder / layout.checkpoint_folder(raw.UID, 50) / layout.MANIFEST).write_bytes(text)
        try:
            Repository(str(folder)).run(raw.UID).load_checkpoint(50, folder / "out")
        except StoreError as error:
            return said(error)
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)
        return ""
    if place in {"manifest", "tombstone"}:
        return _read_version(folder, text)
    path = folder / (layout.HEAD if place == "head" else f"{layout.run_folder(raw.UID)}origin.json")
    before = path.read_bytes() if path.exists() else b""
    path.write_bytes(text)
    try:
        return _everything(folder)
    finally:
        path.write_bytes(before)


def _read_version(folder: Path, text: bytes) -> str:
    """The version's name follows from what lies there, so that no check of names ends the matter early."""
    try:
        sequence = json.loads(text)["sequence"]
        name = version_name(sequence % 10**9, digest_of(text))
    except (ValueError, LookupError, TypeError, RecursionError):
        name = version_name(42, digest_of(text))
    ref = VersionRef(version=name, digest=digest_of(text))
    place = folder / layout.version_folder(name)
    (place / layout.MANIFEST).parent.mkdir(parents=True, exist_ok=True)
    (place / layout.MANIFEST).write_bytes(text)
    try:
        manifest, _ = Repository(str(folder)).record(ref)
        for file in manifest.files:
            assert (folder / "out" / file.path).resolve().is_relative_to(folder / "out"), (
                f"{file.path} leads out of its folder"
            )
            assert (folder / "blobs" / file.sha256).parent == folder / "blobs", f"{file.sha256} leads out of the cache"
            assert file.size >= 0
        return _everything(folder)
    except StoreError as error:
        _everything(folder)
        return said(error, name)
    finally:
        shutil.rmtree(place)


def _everything(folder: Path) -> str:
    """Reads the repository as each reader does."""
    said_last = ""
    try:
        Catalogue.read(str(folder))
    except StoreError as error:
        said_last = said(error, "head.json")
    try:
        repository = Repository(str(folder))
        head = repository.head()
        list(repository.lineage())
        if head:
            repository.manifest(head.ref)
    except StoreError as error:
        said_last = said(error)
    return said_last


# -- downloads ---------------------------------------------------------------------------------------------------------


def read_journal(data: bytes) -> str:
    """Another pod has written the journal and the beginning of a file in a cache that both use."""
    journal, _, content = data.partition(b"\0")
    folder, whole = _repository() / "landing", b"0123456789" * 20
    folder.mkdir(exist_ok=True)
    (folder / f"f{PARTS}").write_bytes(journal)
    (folder / f"f{PARTIAL}").write_bytes(content[: len(whole)].ljust(len(whole), b"\0"))
    file = File(path="f", size=len(whole), sha256=hashlib.sha256(whole).hexdigest())
    with Landing(file, folder / "f") as landing:
        for start, length in landing.landed:
            assert 0 <= start < start + length <= file.size, f"{start} {length} is no range of {file.size} bytes"
    shutil.rmtree(folder)
    return ""


def _journals() -> list[bytes]:
    digest = hashlib.sha256(b"0123456789" * 20).hexdigest().encode()
    return [digest + b"\n0 100\n100 100\n\0" + b"0123456789" * 20, digest + b"\n0 100\n100 1", b"x\n"]


# -- addresses ---------------------------------------------------------------------------------------------------------

_ADDRESSES = (
    f"s3://models/support/versions/000042-bbbbbbbbbbbb@{_DIGEST}",
    "s3://bucket/prefix",
    "file:///data/models",
    "/data/models",
    "file:///data/a%20b",
    "skill://models/x",
    "s3://[::1]/x",
    "models/x/versions/000042-bbbbbbbbbbbb",
    "head.json",
    ".skill/manifest.json",
)


def read_address(data: bytes) -> str:
    """An author's URI, an annotation's text, a manifest's path."""
    text = data.decode(errors="replace")
    messages = ""
    try:
        split_uri(layout.Location.parse(text).repository)
    except StoreError as error:
        messages = said(error)
    try:
        path = layout.checked_path(text)
    except StoreError as error:
        return said(error)
    assert Path("/a/b", path).resolve().is_relative_to("/a/b")
    return messages


# -- engines -----------------------------------------------------------------------------------------------------------


def _replies() -> list[bytes]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}
    told = {"content": [{"token": "4", "logprob": -0.01, "bytes": [52], "top_logprobs": []}]}
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"of": [2, 2]}'}}
    return [
        json.dumps({"id": "x", "object": "chat.completion", "choices": [choice | extra]}).encode()
        for extra in ({}, {"logprobs": told}, {"message": {"role": "assistant", "content": None, "tool_calls": [call]}})
    ]


def read_reply(data: bytes) -> str:
    """An engine's answer to a chat completion."""
    try:
        answer = chat_answer("pod-1", json.loads(data))
    except EngineRefused as error:
        return said(error, "pod-1")
    except (ValueError, RecursionError):
        return "no JSON"
    proof = judge("pod-1", GoldenSet(prompts=(_PROMPT,)), [answer])
    json.dumps([proof.evidence(), proof.nats], allow_nan=False).encode()
    return ""


TARGETS = (
    Target("documents", "every document of the contract", _documents, read_document, 4.0),
    Target("repository", "heads, manifests, tombstones and checkpoints in a bucket", _objects, read_object, 0.3),
    Target("journal", "journals of downloads in a shared cache", _journals, read_journal, 0.3),
    Target(
        "addresses", "URIs, annotations and paths", lambda: [each.encode() for each in _ADDRESSES], read_address, 4.0
    ),
    Target("engine", "answers of engines to golden prompts", _replies, read_reply, 2.0),
)
