"""A namespace on a real API server, seen by a test: what a user does, what is waited for, and a kubelet's part.

Jobs, ReplicaSets, garbage collection are Kubernetes' own controllers. There is no node: what containers do is played
by `Kubelet`, which writes pods' statuses as a kubelet would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

import httpx

from skill_operator.api import WEIGHTS_ANNOTATION
from skill_operator.manifests.job import PROVE
from skill_operator.manifests.serving import weights_patch
from tests.operator import raw

Raw = dict[str, Any]
COLLECTIONS = {
    "skillupdates": "/apis/sdft.dev/v1alpha1",
    "jobs": "/apis/batch/v1",
    "jobsets": "/apis/jobset.x-k8s.io/v1alpha2",
    "localqueues": "/apis/kueue.x-k8s.io/v1beta2",
    "workloads": "/apis/kueue.x-k8s.io/v1beta2",
    "pods": "/api/v1",
    "deployments": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
    "leaderworkersets": "/apis/leaderworkerset.x-k8s.io/v1",
    "rollouts": "/apis/argoproj.io/v1alpha1",
    "inferenceservices": "/apis/serving.kserve.io/v1beta1",
    "replicasets": "/apis/apps/v1",
    "events": "/apis/events.k8s.io/v1",
    "limitranges": "/api/v1",
    "configmaps": "/api/v1",
}
PATIENCE_S = 180
"""A new garbage collector takes half a minute until it has taken note of the CRD, and a busy machine its time."""


class Place:
    """One namespace."""

    def __init__(self, client: httpx.AsyncClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    def path(self, kind: str, name: str = "", part: str = "") -> str:
        steps = [COLLECTIONS[kind], "namespaces", self.namespace, kind, name, part]
        return "/".join(step for step in steps if step)

    async def create(self, kind: str, document: Raw, *, dry_run: bool = False) -> Raw:
        metadata = {"namespace": self.namespace, "name": document["metadata"]["name"]}
        metadata |= {k: v for k, v in document["metadata"].items() if k in {"labels", "annotations"}}
        parameters = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        answer = await self.client.post(self.path(kind), json=document | {"metadata": metadata}, params=parameters)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def patch(self, kind: str, name: str, patch: Raw, part: str = "") -> Raw:
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = await self.client.patch(self.path(kind, name, part), content=json.dumps(patch), headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def apply(self, kind: str, name: str, document: Raw, manager: str) -> Raw:
        headers = {"Content-Type": "application/apply-patch+yaml"}
        answer = await self.client.patch(
            self.path(kind, name), content=json.dumps(document), headers=headers, params={"fieldManager": manager}
        )
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    async def get(self, kind: str, name: str) -> Raw:
        return (await self.client.get(self.path(kind, name))).raise_for_status().json()

    async def list(self, kind: str, selector: str = "") -> list[Raw]:
        answer = await self.client.get(self.path(kind), params={"labelSelector": selector})
        return answer.raise_for_status().json()["items"]

    async def delete(self, kind: str, name: str, *, policy: str = "Background") -> None:
        parameters = {"propagationPolicy": policy}
        (await self.client.delete(self.path(kind, name), params=parameters)).raise_for_status()

    def watch(self, kind: str, **parameters: str) -> contextlib.aclosing[AsyncGenerator[tuple[str, Raw]]]:
        """Returns what there is and then every change, for ever; its connection is closed where the `with` ends."""
        return contextlib.aclosing(self._changes(kind, **parameters))

    async def _changes(self, kind: str, **parameters: str) -> AsyncGenerator[tuple[str, Raw]]:
        while True:
            with contextlib.suppress(httpx.RemoteProtocolError):
                async with self.client.stream(
                    "GET", self.path(kind), params={"watch": "1", **parameters}, timeout=None
                ) as response:
                    if response.status_code == 429:  # the server makes the storage of a CRD that has just changed
                        await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
                        continue
                    response.raise_for_status()
                    async for line in response.aiter_lines():
                        event = json.loads(line)
                        yield event["type"], event["object"]

    async def until(self, kind: str, name: str, reached: Callable[[Raw], Any]) -> Raw:
        """Returns the object as soon as it satisfies `reached`."""
        last: Raw = {}
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                self.watch(kind, fieldSelector=f"metadata.name={name}") as changes,
            ):
                async for event, seen in changes:
                    last = seen
                    if event != "DELETED" and reached(seen):
                        return seen
        except TimeoutError:
            pass
        raise AssertionError(f"{kind}/{name} did not get there: {raw.pretty(last.get('status', last))}")

    async def until_gone(self, kind: str, gone: Raw) -> None:
        """Waits until this very object is not there any more; another one may have its name by then."""
        name, uid = gone["metadata"]["name"], gone["metadata"]["uid"]
        only = {"fieldSelector": f"metadata.name={name}"}
        there = (await self.client.get(self.path(kind), params=only)).raise_for_status().json()
        if uid not in [item["metadata"]["uid"] for item in there["items"]]:
            return
        async with (
            asyncio.timeout(PATIENCE_S),
            self.watch(kind, resourceVersion=there["metadata"]["resourceVersion"], **only) as changes,
        ):
            async for event, seen in changes:
                if event == "DELETED" and seen["metadata"]["uid"] == uid:
                    return

    async def until_some(self, kind: str, selector: str, reached: Callable[[Raw], Any] = bool) -> Raw:
        """Returns the first object of a selector that satisfies `reached`."""
        async with asyncio.timeout(PATIENCE_S), self.watch(kind, labelSelector=selector) as changes:
            async for event, seen in changes:
                if event != "DELETED" and reached(seen):
                    return seen
        raise AssertionError("unreachable: a watch does not end")

    # -- what is served ---------------------------------------------------------------------------------------------

    @property
    def candidate(self) -> str:
        """The annotation of the version that updates of this namespace publish."""
        return f"s3://{self.namespace}/llm/versions/{raw.CHILD[0]}@{raw.CHILD[1]}"

    async def on_candidate(self) -> list[Raw]:
        """The serving pods that were told the candidate."""
        return [pod for pod in await self.list("pods", "app=support-llm") if told(pod) == self.candidate]

    async def first_new_pod(self) -> Raw:
        """Waits for a serving pod that was told the candidate."""
        return await self.until_some("pods", "app=support-llm", lambda pod: told(pod) == self.candidate)

    # -- SkillUpdates -----------------------------------------------------------------------------------------------

    async def update(self, name: str, **spec: Any) -> Raw:
        """Creates a SkillUpdate of a model repository of this namespace's own."""
        document = raw.update(name=name, **({"model": {"uri": f"s3://{self.namespace}/llm"}} | spec))
        if document["spec"].get("serving"):
            usual = {"soakSeconds": 1, "progressDeadlineSeconds": 60, "targetRef": {"name": "support-llm"}}
            document["spec"]["serving"] = usual | spec.get("serving", {})
        del document["status"]
        return await self.create("skillupdates", document)

    async def phase(self, name: str, *phases: str) -> Raw:
        """Waits until an update is in one of these phases, and has been seen in its newest form."""

        def reached(seen: Raw) -> bool:
            status = seen.get("status") or {}
            newest = status.get("observedGeneration") == seen["metadata"]["generation"]
            return newest and status.get("phase") in phases

        return await self.until("skillupdates", name, reached)

    async def step_jobs(self, name: str) -> list[str]:
        """The steps of an update's Jobs, sorted; without the proof of the first new pod (see `Kubelet.seen`)."""
        jobs = await self.list("jobs", f"sdft.dev/update={name},sdft.dev/step!={PROVE}")
        return sorted(job["metadata"]["labels"]["sdft.dev/step"] for job in jobs)

    async def reasons(self, name: str) -> set[str]:
        """The reasons of all events about an update; fails where one was told twice."""
        events = [event for event in await self.list("events") if event["regarding"]["name"] == name]
        told = [(event["reason"], event["note"]) for event in events]
        assert len(told) == len(set(told)), f"told twice: {sorted(told)}"
        return {reason for reason, _ in told}

    async def serve(self, *, weights: str = "", wired: bool = True) -> Raw:
        """Creates the serving Deployment, two replicas that the kubelet makes ready, maybe after an earlier update."""
        document = raw.deployment(wired=wired)
        del document["status"], document["metadata"]["generation"]
        await self.create("deployments", document)
        if weights:
            await self.apply("deployments", "support-llm", weights_patch(raw.PLACE, weights), "skill-operator")
        return await self.until(
            "deployments", "support-llm", lambda d: d.get("status", {}).get("availableReplicas") == 2
        )


def at_rest(deployment: Raw) -> bool:
    """Two pods, and no others, are of the Deployment's newest template and available."""
    status = deployment.get("status", {})
    seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return seen and status.get("replicas") == status.get("updatedReplicas") == status.get("availableReplicas") == 2


def condition(update: Raw, kind: str) -> Raw:
    found = [entry for entry in update["status"].get("conditions", []) if entry["type"] == kind]
    return found[0] if found else {}


def told(pod: Raw) -> str:
    """Returns the version that a serving pod was told."""
    return str((pod["metadata"].get("annotations") or {}).get(WEIGHTS_ANNOTATION, ""))


def annotation(deployment: Raw) -> str:
    return (deployment["spec"]["template"]["metadata"].get("annotations") or {}).get(WEIGHTS_ANNOTATION, "")


@contextlib.asynccontextmanager
async def beside(part: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Plays a part while a test runs; a part that has ended by itself says why, instead of the test's own timeout."""
    task = asyncio.create_task(part)
    try:
        yield
    finally:
        if task.done():
            task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


Play = Callable[[Raw], Raw | None]


class Kubelet:
    """Writes the statuses of a namespace's pods, as a test says.

    `steps` holds what the pods of each step become, one after the other, the last again and again; a step that is not
    in it waits. `serving` says what a serving pod becomes.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.steps: dict[str, list[Raw]] = {
            "check": [self.said("check")], "train": [self.said("train")],
            "prove": [self.said("prove")], "promote": [self.said("promote")], "revert": [self.said("revert")],
        }  # fmt: skip
        self.serving: Play = serves_what_it_is_told
        self.seen: list[str] = []
        """Steps whose pods came up, in order; but for the proof of the first new pod.

        Engines that are ready at once leave no time to hold a rollout: whether there is that step is chance.
        """
        self._known: set[str] = set()

    def said(self, step: str, **changes: Any) -> Raw:
        kind = raw.Step("promote" if step in {"revert", "prove"} else step)
        return raw.said(raw.outcome(kind).model_copy(update=changes))

    async def run(self) -> None:
        """Plays, for ever, the pods that come."""
        async with self._place.watch("pods") as changes:
            async for event, pod in changes:
                uid = pod["metadata"]["uid"]
                if event == "ADDED" and uid not in self._known and pod["status"].get("phase") == "Pending":
                    self._known.add(uid)
                    await self._play(pod)

    async def _play(self, pod: Raw) -> None:
        step = pod["metadata"].get("labels", {}).get("sdft.dev/step")
        if step:
            self.seen += [step] if step != PROVE else []
            plays = self.steps.get(step) or []
            status = plays.pop(0) if len(plays) > 1 else plays[0] if plays else None
        else:
            status = self.serving(pod)
        if status:
            await self.write(pod["metadata"]["name"], status)

    async def write(self, name: str, status: Raw) -> None:
        with contextlib.suppress(AssertionError):  # the pod went meanwhile
            await self._place.patch("pods", name, {"status": status}, "status")

    async def finish(self, step: str, status: Raw | None = None) -> None:
        """Ends the pod of a step, now or as soon as it comes; said twice (here and in `run`) it is still one end."""
        self.steps[step] = [status or self.said(step)]
        pod = await self._place.until_some("pods", f"sdft.dev/step={step}")
        await self.write(pod["metadata"]["name"], self.steps[step][0])


def slow_on(weights: str) -> Play:
    """Pods that are not ready with this version until a test writes their status, and at once with any other."""
    return lambda pod: None if told(pod) == weights else serves_what_it_is_told(pod)


def serves_what_it_is_told(pod: Raw) -> Raw:
    """A good pod: it fetches the version of its annotation (or the head) and is ready."""
    weights = pod["metadata"].get("annotations", {}).get(WEIGHTS_ANNOTATION, "")
    digest = weights.partition("@")[2] or raw.PARENT[1]
    return raw.serving_status(raw.fetched(weights, digest))
