"""What an engine's own settings mean for new weights: shared keys and values are refused, draft models told of."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from skill_operator.actions import ApplyWeights
from skill_operator.api import VERSION_FIELD_PATH, WEIGHTS_FIELD_PATH
from skill_operator.targets.engine import draft_model, kv_cache, shared_by_adapters, shared_by_versions
from tests.operator import raw
from tests.operator.raw import Raw
from tests.operator.seen import served, truth, why
from tests.operator.sim import Sim

LMCACHE = json.dumps({"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"})
OWN = json.dumps({"kv_connector": "OffloadingConnector", "kv_role": "kv_both"})
FILES = json.dumps({"kv_connector": "OffloadingConnector", "kv_connector_extra_config": {"spec_name": "Files"}})
BOTH = json.dumps({"kv_connector": "MultiConnector", "kv_connector_extra_config": {"connectors": [
    {"kv_connector": "OffloadingConnector"}, {"kv_connector": "NixlConnector"}]}})  # fmt: skip
VERSION = {"name": "SKILL_VERSION", "valueFrom": {"fieldRef": {"fieldPath": VERSION_FIELD_PATH}}}
WEIGHTS = {"name": "SKILL_WEIGHTS", "valueFrom": {"fieldRef": {"fieldPath": WEIGHTS_FIELD_PATH}}}


def template(*args: str, env: list[Raw] | None = None, **container: Any) -> Raw:
    engine = {"name": "server", "image": "engine", "args": list(args), "env": env or []} | container
    return {"spec": {"containers": [{"name": "proxy", "image": "proxy"}, engine]}}


SHARED = [
    (template("--model", "/weights", "--kv-transfer-config", LMCACHE), "--kv-transfer-config LMCacheConnectorV1"),
    (template("--model=/weights", f"--kv-transfer-config={LMCACHE}"), "LMCacheConnectorV1"),
    (template("--kv_transfer_config.kv_connector", "NixlConnector"), "NixlConnector"),
    (template("--kv-transfer-config", "$(CONNECTOR)"), "--kv-transfer-config"),
    (template("--kv-transfer-config", BOTH), "--kv-transfer-config NixlConnector"),
    (template("--kv-transfer-config", FILES), "--kv-transfer-config"),
    (template("--kv-offloading-backend", "lmcache", "--kv-offloading-size", "64"), "--kv-offloading-backend lmcache"),
    (template("/weights", env=[{"name": "LMCACHE_REMOTE_URL", "value": "redis://cache:6379"}]), "LMCACHE_REMOTE_URL"),
    (template(command=["sh", "-c", f"vllm serve /weights --kv-transfer-config '{LMCACHE}'"]), "LMCacheConnectorV1"),
    (template("--model-path", "/weights", "--hicache-storage-backend", "file"), "--hicache-storage-backend file"),
    (template("--hicache-storage-backend=mooncake"), "mooncake"),
    # A variable of the whole annotation will not do: LMCache takes its @ for an end of the name.
    (template("--model", "/w/$(SKILL_WEIGHTS)", "--kv-transfer-config", LMCACHE, env=[WEIGHTS]), "LMCacheConnectorV1"),
    # SGLang's store does not ask for the path.
    (template("--model-path", "/weights/$(SKILL_VERSION)", "--hicache-storage-backend", "file", env=[VERSION]), "file"),
]


@pytest.mark.parametrize(("pod", "setting"), SHARED)
def test_store_that_is_the_same_for_all_versions_is_found(pod: Raw, setting: str):
    cache = kv_cache([template(), pod])
    assert cache is not None
    assert (cache.container, cache.knows_version) == ("server", False)
    assert setting in cache.setting
    for said in (shared_by_versions(cache), shared_by_adapters(cache)):
        assert f"container server keeps keys and values where other pods find them ({cache.setting})" in said


@pytest.mark.parametrize(
    "pod",
    [
        template("--model", "/weights"),
        template("--model", "/weights", "--kv-offloading-size", "64"),
        template("--kv-offloading-backend", "native"),
        template("--kv-transfer-config", OWN),
        template("--enable-hierarchical-cache", "--hicache-ratio", "2"),
    ],
)
def test_what_stays_in_the_pods_own_memory_is_no_shared_store(pod: Raw):
    assert kv_cache([pod]) is None


@pytest.mark.parametrize(
    "pod",
    [
        template("--model", "/weights/$(SKILL_VERSION)", "--kv-transfer-config", LMCACHE, env=[VERSION]),
        template("--kv-transfer-config", BOTH, command=["vllm", "serve", "/weights/$(SKILL_VERSION)"], env=[VERSION]),
        template("--hicache-storage-backend", "file", env=[
            VERSION, {"name": "SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR", "value": "/cache/$(SKILL_VERSION)"}]),
        template("--hicache-storage-backend", "nixl", "--hicache-storage-backend-extra-config",
                 '{"storage_dir": "/cache/$(SKILL_VERSION)"}', env=[VERSION]),
    ],
)  # fmt: skip
def test_store_that_is_told_the_version_may_be_shared(pod: Raw):
    cache = kv_cache([pod])
    assert cache is not None
    assert (cache.knows_version, shared_by_versions(cache)) == (True, "")


@pytest.mark.parametrize(("pod", "setting"), SHARED)
def test_lines_of_the_refusal_make_it_go_away(pod: Raw, setting: str):
    cache = kv_cache([pod])
    assert cache is not None, setting
    lines = yaml.safe_load(shared_by_versions(cache).partition("pod template:\n")[2])
    given, added = pod["spec"]["containers"][1], lines["containers"][0]
    mended = given | {
        "args": [*(added.get("args") or ()), *(given.get("args") or ())],
        "env": [*added["env"], *(given.get("env") or ())],
    }
    found = kv_cache([{"spec": {"containers": [mended]}}])
    assert added["name"] == given["name"]
    assert found is not None
    assert found.knows_version
    if cache.by_path:  # and the version lies where the engine looks for it
        assert lines["initContainers"][0]["args"][-1] == added["args"][-1] == "/weights/$(SKILL_VERSION)"
        assert lines["initContainers"][0]["env"] == [VERSION]


def with_engine(sim: Sim, *args: str, **container: Any) -> None:
    assert sim.deployment is not None
    sim.deployment["spec"]["template"]["spec"]["containers"][0] |= {"args": list(args)} | container


def test_shared_store_is_refused_before_anything_is_written_and_mended_by_a_path_of_its_own():
    sim = served()
    with_engine(sim, "--model", "/weights", "--kv-transfer-config", LMCACHE)
    sim.until_published()
    assert why(sim, "Stalled")[0] == "SharedKVCache"
    assert truth(sim)["SharedKVCache"] == "True"
    assert "LMCacheConnectorV1" in why(sim)[1]
    assert not any(isinstance(action, ApplyWeights) for action in sim.done)
    with_engine(sim, "--model", "/weights/$(SKILL_VERSION)", "--kv-transfer-config", LMCACHE, env=[VERSION])
    sim.settle()
    assert "SharedKVCache" not in truth(sim)
    assert sim.annotation == raw.CANDIDATE


@pytest.mark.parametrize(
    ("args", "guesses"),
    [
        (["--speculative-config", '{"method": "eagle3", "model": "/draft", "num_speculative_tokens": 3}'], True),
        (["--speculative-algorithm", "EAGLE", "--speculative-draft-model-path", "/draft"], True),
        (["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}'], False),
        (["--model", "/weights"], False),
    ],
)
def test_draft_model_is_told_of_once_and_refuses_nothing(args: list[str], guesses: bool):
    assert bool(draft_model([template(*args)])) is guesses
    sim = served()
    with_engine(sim, *args)
    sim.until_published()
    sim.settle()
    told = [news for news in sim.alerts if news.reason == "DraftModel"]
    assert [news.warning for news in told] == [True] * guesses
    assert sim.annotation == raw.CANDIDATE
    if told:
        assert "container server" in told[0].message
