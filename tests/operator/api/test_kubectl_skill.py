"""`kubectl skill` at a real API server, with the operator and Kubernetes' controllers behind it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kubectl_skill.cli import main
from kubectl_skill.cluster import Access, connect
from kubectl_skill.errors import ExitCode, RefusedError
from kubectl_skill.reasons import all_words, plain
from tests.cluster.binaries import binary
from tests.cluster.controlplane import ControlPlane
from tests.operator import raw
from tests.operator.api.place import PATIENCE_S, Kubelet, Place, condition

pytestmark = pytest.mark.api
OF_OPERATOR = pytest.mark.usefixtures("operator")


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Skill = Callable[..., Coroutine[None, None, Said]]


@pytest.fixture
def skill(plane: ControlPlane, place: Place, capsys: pytest.CaptureFixture[str]) -> Skill:
    """Calls the plugin in this process, as the cluster's administrator or as somebody else."""

    async def call(*words: str, user: str = "", namespace: str = "") -> Said:
        kubeconfig = plane.kubeconfig_for(user) if user else plane.kubeconfig
        flags = ["--kubeconfig", str(kubeconfig), "-n", namespace or place.namespace]
        capsys.readouterr()
        code = await asyncio.to_thread(main, [*flags, *words])
        told = capsys.readouterr()
        return Said(code, told.out, told.err)

    return call


@asynccontextmanager
async def watching(plane: ControlPlane, place: Place, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The plugin as a process of its own, which has seen the update when this is entered."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kubectl_skill.cli", "watch", *words, "-n", place.namespace),
        env={**os.environ, "KUBECONFIG": str(plane.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def lines(process: asyncio.subprocess.Process) -> list[str]:
    """Waits for its end and returns what it has printed."""
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert not err, err.decode()
    return out.decode().splitlines()


@OF_OPERATOR
async def test_update_is_looked_at_approved_followed_and_taken_back(
    plane: ControlPlane, place: Place, kubelet: Kubelet, skill: Skill
):
    await place.serve()
    await place.update("refund", gates={"approval": "Manual"})
    await place.phase("refund", "AwaitingApproval")
    shown = await skill("status", "refund", "-o", "json")
    assert (shown.code, json.loads(shown.out)["next"][1]) == (0, f"kubectl skill approve refund -n {place.namespace}")

    assert "dry run" in (await skill("approve", "refund", "--dry-run")).out
    assert not (await place.get("skillupdates", "refund"))["spec"].get("approved")
    async with watching(plane, place, "refund") as process:
        approved = await skill("approve", "refund")
        assert approved.code == 0, approved.err
        assert f"approved {raw.CHILD[0]} (refund-tool 0.10 → 0.90)" in approved.out
        told = await lines(process)
        assert process.returncode == 0
    assert told[-1].startswith(f"{place.namespace}/refund  Succeeded")
    assert "unchanged" in (await skill("approve", "refund")).out

    done = await skill("status", "refund", "--exit-code")
    assert (done.code, "✓ promote" in done.out, "2 of 2 proved" in done.out) == (0, True, True)
    back = await skill("revert", "refund", "--watch")
    assert back.code == 0, back.err
    assert f"goes back from {raw.CHILD[0]} to {raw.PARENT[0]}" in back.out
    assert "Reverted" in back.out.splitlines()[-1]
    assert "reverted already" in (await skill("revert", "refund")).out


@OF_OPERATOR
async def test_suspended_resumed_and_watched_as_documents(place: Place, kubelet: Kubelet, skill: Skill):
    kubelet.steps["train"] = []
    await place.update("pausing", serving=False)
    await place.phase("pausing", "Training")
    early = await skill("revert", "pausing")
    assert (early.code, "only a finished update is reverted" in early.err) == (ExitCode.REFUSED, True)
    assert (await skill("suspend", "pausing")).code == 0
    await place.phase("pausing", "Suspended")
    assert "kubectl skill resume pausing" in (await skill("status", "pausing")).out
    kubelet.steps["train"] = [kubelet.said("train")]
    assert (await skill("resume", "pausing")).code == 0
    watched = await skill("watch", "pausing", "-o", "json")
    documents = [json.loads(line) for line in watched.out.splitlines()]
    assert watched.code == 0
    assert documents[-1]["phase"] == "Succeeded"
    assert len({json.dumps(document) for document in documents}) == len(documents)
    late = await skill("suspend", "pausing")
    assert (late.code, "has ended" in late.err) == (ExitCode.REFUSED, True)


@OF_OPERATOR
async def test_explain_says_why_with_what_the_cluster_says_and_what_to_do(place: Place, kubelet: Kubelet, skill: Skill):
    kubelet.steps["train"] = [
        raw.pod_status(phase="Pending", waiting={"reason": "ImagePullBackOff", "message": "no x:1"})
    ]
    await place.update("stuck", serving=False)
    await place.until(
        "skillupdates",
        "stuck",
        lambda u: "status" in u and "ImagePullBackOff" in condition(u, "Ready").get("message", ""),
    )
    found = json.loads((await skill("explain", "stuck", "-o", "json")).out)
    words = all_words()["Training"]
    assert (found["reason"], found["do"]) == ("Training", plain(words.do))
    assert any("ImagePullBackOff: no x:1" in each["words"] for each in found["evidence"])
    (pod,) = await place.list("pods", "sdft.dev/step=train")
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": place.namespace}
    about |= {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    event = {"metadata": {"name": "failed"}, "type": "Warning", "reason": "Failed", "note": "pull rate limit"}
    event |= {"eventTime": "2026-01-01T00:00:00.000000Z", "regarding": about, "action": "Pulling"}
    await place.create("events", event | {"reportingController": "kubelet", "reportingInstance": "node"})
    found = json.loads((await skill("explain", "stuck", "-o", "json")).out)
    assert found["evidence"][-1] == {"source": f"event of Pod {about['name']}", "words": "Failed: pull rate limit"}

    kubelet.steps["train"] = [kubelet.said("train")]
    await place.update("lost", model={"uri": f"s3://{place.namespace}/other"})
    await place.until("skillupdates", "lost", lambda u: "status" in u and condition(u, "Stalled"))
    shown = await skill("explain", "lost")
    assert shown.code == ExitCode.NOT_WELL
    assert "TargetMissing" in shown.out
    assert plain(all_words()["TargetMissing"].do) in shown.out
    assert (await skill("status", "lost", "--exit-code")).code == ExitCode.NOT_WELL


@OF_OPERATOR
async def test_watch_ends_with_1_where_the_update_failed(place: Place, kubelet: Kubelet, skill: Skill):
    answer = raw.outcome(raw.Step.CHECK, raw.Result.FAILED, "DataInvalid", "train.jsonl, line 2: no prompt")
    kubelet.steps["check"] = [raw.said(answer, 42)]
    await place.update("broken", serving=False)
    watched = await skill("watch", "broken")
    assert watched.code == ExitCode.NOT_WELL
    assert "DataInvalid: train.jsonl, line 2: no prompt" in watched.out.splitlines()[-1]


async def test_names_that_are_not_there(place: Place, skill: Skill):
    empty = await skill("list")
    assert (empty.code, empty.out, "no SkillUpdates" in empty.err) == (0, "", True)
    await place.update("legal-terms", serving=False)
    near = await skill("status", "legl-terms")
    assert (near.code, near.out) == (ExitCode.NOT_FOUND, "")
    assert near.err.strip().endswith("did you mean legal-terms?")
    elsewhere = await skill("suspend", "legal-terms", namespace="default")
    assert f"there is one in {place.namespace}" in elsewhere.err
    both = await skill("status", "legal-terms", "-A")
    assert both.code == ExitCode.USAGE


async def test_list_shows_what_is_there(place: Place, skill: Skill):
    await place.update("one", serving=False)
    await place.update("two", serving=False)
    assert [each["name"] for each in json.loads((await skill("list", "-o", "json")).out)] == ["one", "two"]
    header, *rows = (await skill("list", "-A")).out.splitlines()
    assert header.split()[:2] == ["NAMESPACE", "NAME"]
    assert [row.split()[1] for row in rows if row.startswith(place.namespace)] == ["one", "two"]


async def test_what_you_may_not_do_is_said_in_a_sentence(plane: ControlPlane, place: Place, skill: Skill):
    await place.update("secret", serving=False)
    refused = await skill("status", "secret", user="nobody")
    assert (refused.code, refused.out) == (ExitCode.REFUSED, "")
    assert 'User "nobody" cannot get resource' in refused.err
    assert "ask for that right" in refused.err
    assert len(refused.err.splitlines()) == 1


async def test_explain_does_without_what_you_may_not_list(plane: ControlPlane, place: Place, skill: Skill):
    await place.update("seen", serving=False)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "looks"}}
    role["rules"] = [{"apiGroups": ["sdft.dev"], "resources": ["skillupdates"], "verbs": ["get"]}]
    binding = role | {"kind": "RoleBinding", "roleRef": {"kind": "Role", "name": "looks"}}
    del binding["rules"]
    binding["roleRef"]["apiGroup"] = "rbac.authorization.k8s.io"
    binding["subjects"] = [{"kind": "User", "name": place.namespace, "apiGroup": "rbac.authorization.k8s.io"}]
    documents = yaml.safe_dump_all([role, binding])
    await asyncio.to_thread(plane.kubectl, "apply", f"--namespace={place.namespace}", "--filename=-", stdin=documents)
    found = await skill("explain", "seen", user=place.namespace)
    assert found.code == 0, found.err
    assert "to do" in found.out
    assert "note: without pods: " in found.err
    assert "note: without events: " in found.err


async def test_flags_of_kubectl_say_which_cluster_and_as_whom(plane: ControlPlane, place: Place, skill: Skill):
    await place.update("seen", serving=False)
    refused = await skill("status", "seen", "--as", "somebody")
    assert (refused.code, 'User "somebody" cannot get' in refused.err) == (ExitCode.REFUSED, True), refused.err
    assert (await skill("status", "seen", "--as", "somebody", user="nobody")).code == ExitCode.REFUSED
    stranger = await skill("status", "seen", "--token", "of-nobody")
    assert (stranger.code, "log in" in stranger.err) == (ExitCode.REFUSED, True), stranger.err
    away = await skill("status", "seen", "--server", "https://127.0.0.1:1")
    assert (away.code, "does not answer" in away.err) == (ExitCode.UNAVAILABLE, True), away.err


async def test_change_meets_the_object_that_was_looked_at_and_no_other(plane: ControlPlane, place: Place):
    cluster = connect(Access(kubeconfig=str(plane.kubeconfig), namespace=place.namespace))
    created = await place.update("again", serving=False)
    looked_at = await asyncio.to_thread(cluster.update, "again")
    await place.delete("skillupdates", "again")
    await place.until_gone("skillupdates", created)
    await place.update("again", serving=False)
    with pytest.raises(RefusedError, match="look at it again"):
        await asyncio.to_thread(cluster.change, looked_at, {"suspend": True})
    assert not (await place.get("skillupdates", "again"))["spec"].get("suspend")


async def test_new_update_is_taken_by_the_cluster(plane: ControlPlane, place: Place, skill: Skill, tmp_path: Path):
    train, held_out = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text('{"prompt": "What is a heron?", "completion": "A bird."}\n')
    held_out.write_text('{"prompt": "What is a rose?", "answer": "flower"}\n')
    file = tmp_path / "update.yaml"
    usual = ("new", "heron", "--model", "s3://models/llm", "--data", str(train), "--held-out", str(held_out))
    usual += ("--grader", "contains", "--at", "s3://skills/heron", "--target", "statefulset/llm", "--secret", "s3")
    made = await skill(*usual, "--set", "method.optimizer.learningRate=8e-5", "--file", str(file), "--server-check")
    assert made.code == 0, made.err
    assert f"aws s3 cp {train} s3://skills/heron/train.jsonl" in made.err
    # By kubectl, as a person would: its YAML takes 8e-5 for a number, PyYAML does not.
    await asyncio.to_thread(plane.kubectl, "apply", f"--namespace={place.namespace}", f"--filename={file}")
    seen = (await place.get("skillupdates", "heron"))["spec"]
    assert (seen["serving"]["targetRef"]["kind"], seen["method"]["optimizer"]["learningRate"]) == (
        "StatefulSet",
        "8e-5",
    )
    bad = await skill(*usual, "--set", "method.steps=24", "--set", "serving.port=0", "--server-check")
    assert (bad.code, bad.out) == (ExitCode.USAGE, "")
    refused = await skill("new", "x" * 60, *usual[2:], "--server-check")
    assert (refused.code, "at most 40" in refused.err) == (ExitCode.REFUSED, True)


async def test_kubectl_finds_the_plugin_and_its_completion(plane: ControlPlane, place: Place, tmp_path: Path):
    await place.update("refund-tool", serving=False)
    for name, module in (("kubectl-skill", "cli"), ("kubectl_complete-skill", "completion")):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kubectl_skill.{module} "$@"\n')
        program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "KUBECONFIG": str(plane.kubeconfig),
        "XDG_CACHE_HOME": str(tmp_path),
    }

    async def kubectl(*words: str) -> str:
        command = [str(binary("kubectl")), *words]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "refund-tool" in await kubectl("skill", "list", "-n", place.namespace)
    told = await kubectl("__complete", "skill", "status", "-n", place.namespace, "ref")
    assert told.splitlines() == ["refund-tool", ":4"]
