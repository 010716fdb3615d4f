"""Git controllers and the operator do not fight: over nothing, at no phase, whichever way Git applies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from skill_contract.outcome import Result
from tests.cluster.controlplane import ControlPlane
from tests.gitops.programs import Program, program
from tests.operator import raw
from tests.operator.api.git import Git, History, at_rest_under
from tests.operator.api.place import Kubelet, Place, annotation, at_rest, beside, condition, serves_what_it_is_told
from tests.operator.raw import CHILD, Raw, Step

pytestmark = [pytest.mark.api, pytest.mark.gitops, pytest.mark.usefixtures("operator")]

WAYS = {
    "argo cd": ("argocd", "sync", "client"),
    "argo cd, server-side": ("argocd", "sync", "server"),
    "flux": ("flux", "sync"),
}
PRUNES = {"argocd": "Foreground", "flux": "Background"}
"""How each deletes by default.

Source: Argo CD, sync option PrunePropagationPolicy; Flux, kustomize-controller, `ssa.DefaultDeleteOptions`.
"""
APPROVAL = {"approval": "Manual"}


@pytest.fixture(scope="module", params=WAYS.values(), ids=WAYS.keys())
def controller(
    request: pytest.FixtureRequest, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    name, *args = request.param
    log = tmp_path_factory.mktemp(name) / "log"
    with program(name, *args, log=log, KUBECONFIG=str(plane.kubeconfig)) as process:
        yield process


@pytest.fixture
async def git(controller: Program, place: Place) -> AsyncIterator[Git]:
    folder = Git(controller, place, prunes=PRUNES[controller.name])
    async with beside(folder.run()):
        yield folder


@pytest.fixture
async def annotations(place: Place) -> AsyncIterator[History]:
    history = History(place, "deployments", annotation)
    async with beside(history.run()):
        yield history


def deployment() -> Raw:
    document = raw.deployment()
    del document["status"], document["metadata"]["generation"], document["metadata"]["namespace"]
    return document


def update(place: Place, name: str, **spec: object) -> Raw:
    """A file of Git's."""
    model = {"uri": f"s3://{place.namespace}/llm"}
    document = raw.update(name=name, model=model, **spec)
    document["spec"]["serving"] |= {"soakSeconds": 0}
    return {key: document[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}


def candidate(place: Place) -> str:
    return f"s3://{place.namespace}/llm/versions/{CHILD[0]}@{CHILD[1]}"


def hold_pods(kubelet: Kubelet) -> None:
    """From now on serving pods do not come up."""
    kubelet.serving = lambda pod: None


async def let_pods_serve(place: Place, kubelet: Kubelet) -> None:
    """Those that wait and those to come."""
    kubelet.serving = serves_what_it_is_told
    for pod in await place.list("pods", "app=support-llm"):
        await kubelet.write(pod["metadata"]["name"], serves_what_it_is_told(pod))


class Held:
    """Phases that an update is held in until Git has applied twice more and nothing at all has moved."""

    def __init__(self, place: Place, git: Git, name: str) -> None:
        self._place, self._git, self._name = place, git, name

    async def at(self, phase: str) -> Raw:
        seen = await self._place.phase(self._name, phase)
        await at_rest_under(self._git, self._place, ("skillupdates", self._name), ("deployments", "support-llm"))
        return seen


async def test_git_that_applies_without_end_changes_nothing_in_the_life_of_an_update(
    place: Place, kubelet: Kubelet, git: Git, annotations: History
):
    promote, revert, train = (kubelet.said(step) for step in ("promote", "revert", "train"))
    kubelet.steps |= {"train": [], "promote": [], "revert": []}
    held = Held(place, git, "first")
    git.commit(deployment())
    await place.until("deployments", "support-llm", at_rest)

    git.commit(update(place, "first", gates=APPROVAL))
    await held.at("Training")
    git.commit(update(place, "first", gates=APPROVAL, suspend=True))
    await held.at("Suspended")
    kubelet.steps["train"] = [train]
    git.commit(update(place, "first", gates=APPROVAL))  # what Git does not say any more is as it was
    await held.at("AwaitingApproval")
    hold_pods(kubelet)
    git.commit(update(place, "first", gates=APPROVAL, approved=True))
    await held.at("RollingOut")
    await let_pods_serve(place, kubelet)
    await held.at("Soaking")
    await kubelet.finish("promote", promote)
    await held.at("Succeeded")
    hold_pods(kubelet)
    git.commit(update(place, "first", gates=APPROVAL, approved=True, revert=True))
    await held.at("Reverting")
    await kubelet.finish("revert", revert)
    await place.until("deployments", "support-llm", lambda d: annotation(d) == "")
    await held.at("Reverting")
    await let_pods_serve(place, kubelet)
    last = await held.at("Reverted")

    assert git.met == []
    assert annotations.values == ["", candidate(place), ""]
    assert last["metadata"]["generation"] == 5, "as often as Git changed it"
    await assert_there_and_back(place)
    for job in await place.list("jobs"):
        labels = job["metadata"]["labels"] | job["spec"]["template"]["metadata"]["labels"]
        assert not {label for label in labels if "git" in label or "flux" in label}, "Git would take it for its own"


async def test_git_does_not_hinder_a_rollback(place: Place, kubelet: Kubelet, git: Git, annotations: History):
    rejected = raw.said(raw.outcome(Step.PROMOTE, Result.REJECTED, "OutputMismatch", "A is not B"))
    kubelet.steps["promote"] = []
    held = Held(place, git, "bad")
    git.commit(deployment(), update(place, "bad"))
    await held.at("Soaking")
    hold_pods(kubelet)
    await kubelet.finish("promote", rejected)
    await held.at("RollingBack")
    await let_pods_serve(place, kubelet)
    last = await held.at("RolledBack")
    assert condition(last, "Stalled")["reason"] == "OutputMismatch"
    assert git.met == []
    assert annotations.values == ["", candidate(place), ""]
    await assert_there_and_back(place)


async def test_spec_that_git_may_not_change_is_refused_and_the_update_goes_on(place: Place, kubelet: Kubelet, git: Git):
    kubelet.steps["train"] = []
    held = Held(place, git, "edited")
    git.commit(deployment(), update(place, "edited"))
    await held.at("Training")
    git.commit(update(place, "edited", skill={"name": "another"}))
    await git.applied()
    before = await held.at("Training")
    assert git.met
    assert all("create a new SkillUpdate" in error for error in git.met)
    git.commit(update(place, "edited"))
    await git.applied()
    git.met.clear()
    await kubelet.finish("train")
    last = await held.at("Succeeded")
    assert last["metadata"]["generation"] == before["metadata"]["generation"] == 1
    assert git.met == []


async def test_update_that_git_removes_before_its_rollout_goes_with_its_jobs(
    place: Place, kubelet: Kubelet, git: Git, annotations: History
):
    kubelet.steps["train"] = []
    git.commit(deployment(), update(place, "unwanted"))
    seen = await place.phase("unwanted", "Training")
    (job,) = await place.list("jobs", "sdft.dev/step=train")
    git.remove(seen)
    await place.until_gone("skillupdates", seen)
    await place.until_gone("jobs", job)
    await git.applied(2)
    assert (annotations.values, git.met) == ([""], [])


async def test_update_that_git_removes_in_its_rollout_goes_back_first(
    place: Place, kubelet: Kubelet, git: Git, annotations: History
):
    git.commit(deployment())
    await place.until("deployments", "support-llm", at_rest)
    hold_pods(kubelet)
    git.commit(update(place, "regretted"))
    seen = await Held(place, git, "regretted").at("RollingOut")
    git.remove(seen)
    await place.until("skillupdates", "regretted", lambda u: u["status"]["phase"] == "RollingBack")
    await let_pods_serve(place, kubelet)
    await place.until_gone("skillupdates", seen)
    await place.until("deployments", "support-llm", at_rest)
    await git.applied(2)
    assert (annotations.values, git.met) == (["", candidate(place), ""], [])


async def test_update_that_git_removes_while_it_is_promoted_goes_when_the_promotion_has_decided(
    place: Place, kubelet: Kubelet, git: Git, annotations: History
):
    """The head may have moved already. A deletion in the foreground takes the step away: then it is asked again."""
    kubelet.steps["promote"] = [raw.running()]
    git.commit(deployment(), update(place, "late"))
    await place.until("skillupdates", "late", lambda u: (u.get("status") or {}).get("rollout", {}).get("promoting"))
    (pod,) = await place.list("pods", "sdft.dev/step=promote")
    seen = await place.get("skillupdates", "late")
    git.remove(seen)
    await place.until("skillupdates", "late", lambda u: "deletionTimestamp" in u["metadata"])
    if git.prunes == "Foreground":
        await place.until_gone("pods", pod)
    await kubelet.finish("promote")
    await place.until_gone("skillupdates", seen)
    await at_rest_under(git, place, ("deployments", "support-llm"))
    assert (annotations.values, git.met) == (["", candidate(place)], [])


async def test_update_that_git_removes_when_it_is_done_changes_nothing(
    place: Place, kubelet: Kubelet, git: Git, annotations: History
):
    git.commit(deployment(), update(place, "done"))
    seen = await Held(place, git, "done").at("Succeeded")
    git.remove(seen)
    await place.until_gone("skillupdates", seen)
    await at_rest_under(git, place, ("deployments", "support-llm"))
    assert (annotations.values, git.met) == (["", candidate(place)], [])


async def test_deployment_that_git_edits_while_the_first_pod_is_held_rolls_with_the_candidate(
    place: Place, kubelet: Kubelet, git: Git, annotations: History
):
    git.commit(deployment())
    await place.until("deployments", "support-llm", at_rest)
    hold_pods(kubelet)
    git.commit(update(place, "mixed"))
    await place.until("deployments", "support-llm", lambda d: d["spec"].get("paused"))
    edited = deployment()
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = "engine:of-git"
    git.commit(edited)
    await git.applied(2)
    await let_pods_serve(place, kubelet)
    await place.phase("mixed", "Succeeded")
    last = await place.until("deployments", "support-llm", at_rest)
    assert last["spec"]["template"]["spec"]["containers"][0]["image"] == "engine:of-git"
    assert "MixedChange" in await place.reasons("mixed")
    assert (annotations.values, git.met) == (["", candidate(place)], [])


async def assert_there_and_back(place: Place) -> None:
    """Its pods are those of the ReplicaSet from before, and there was but one other."""
    assert len(await place.list("replicasets")) == 2
