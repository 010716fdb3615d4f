"""What has to become of a target of any kind: rolled out, rolled back, left alone."""

from __future__ import annotations

from skill_operator.api import VERSION_ANNOTATION, WEIGHTS_ANNOTATION
from skill_operator.manifests.serving import weights_patch
from tests.operator import raw
from tests.operator.api.place import Kubelet, Place, Play, condition, serves_what_it_is_told
from tests.operator.api.targets import NAME, Served
from tests.operator.raw import CHILD, Raw

STRANGE = "s3://elsewhere/versions/1@sha256:1"


class Stories:
    """Of a test class: it takes `served` from its own module."""

    async def test_candidate_is_rolled_out_by_one_annotation(self, place: Place, kubelet: Kubelet, served: Served):
        """The candidate is rolled out and promoted; of the target the operator owns one annotation and nothing else."""
        await begin(place, served, "served")
        update = await place.phase("served", "Succeeded")
        assert update["status"]["rollout"]["podsVerified"] == f"{served.count}/{served.count}"
        assert await told(place, served) == {candidate(place)}
        target = await place.get(served.collection, NAME)
        (owned,) = [e for e in target["metadata"]["managedFields"] if e["manager"] == "skill-operator"]
        assert (owned["operation"], owned["fieldsV1"]) == ("Apply", only(served))

    async def test_version_that_cannot_be_fetched_is_rolled_back(self, place: Place, kubelet: Kubelet, served: Served):
        """A version that cannot be fetched is taken back, on every pod."""
        broken = raw.fetch_failed("DigestMismatch", "sha256 of model.safetensors differs", "model.safetensors")
        kubelet.serving = instead_of(candidate(place), raw.serving_status(broken, fetch_code=1, ready=False))
        await begin(place, served, "altered")
        update = await place.phase("altered", "RolledBack")
        assert condition(update, "Stalled")["reason"] == "DigestMismatch"
        assert await told(place, served) == {""}
        assert "promote" not in kubelet.seen
        await place.until("skillupdates", "altered", lambda u: not u["metadata"].get("finalizers"))

    async def test_target_that_somebody_else_changes_is_left_alone(
        self, place: Place, kubelet: Kubelet, served: Served
    ):
        """A target that somebody else changes in the middle stays as that one wants it."""
        kubelet.serving = instead_of(candidate(place), None)  # its pods come and stay as they come
        await begin(place, served, "meddled")
        await place.until_some(
            "pods", served.pods, lambda pod: candidate(place) in str(pod["metadata"].get("annotations"))
        )
        change = {"spec": weights_patch(served.where, STRANGE)["spec"]}
        await place.patch(served.collection, NAME, change)
        update = await place.phase("meddled", "Failed")
        assert condition(update, "Stalled")["reason"] == "Superseded"
        assert STRANGE in condition(update, "Stalled")["message"]
        stays = await place.get(served.collection, NAME)
        assert STRANGE in str(stays["spec"])
        assert candidate(place) not in str(stays["spec"])


def candidate(place: Place) -> str:
    return f"s3://{place.namespace}/llm/versions/{CHILD[0]}@{CHILD[1]}"


async def begin(place: Place, served: Served, name: str) -> None:
    """The target is up; an update of it is created."""
    await place.create(served.collection, served.manifest)
    await place.until(served.collection, NAME, served.is_up)
    await place.update(name, serving={"targetRef": served.reference})


async def told(place: Place, served: Served) -> set[str]:
    """What all pods of the target were told, once it is at rest."""
    await place.until(served.collection, NAME, served.is_up)
    pods = await place.list("pods", served.pods)
    assert len(pods) == served.count
    return {pod["metadata"].get("annotations", {}).get(WEIGHTS_ANNOTATION, "") for pod in pods}


def instead_of(weights: str, status: Raw | None) -> Play:
    """A pod becomes this with one version, and good with any other."""

    def play(pod: Raw) -> Raw | None:
        own = pod["metadata"].get("annotations", {}).get(WEIGHTS_ANNOTATION, "")
        return status if own == weights else serves_what_it_is_told(pod)

    return play


def only(served: Served) -> Raw:
    """The fields of nothing but the annotations, as managedFields has them."""
    fields: Raw = {}
    for path in served.where.paths:
        inner = fields
        for step in path:
            inner = inner.setdefault(f"f:{step}", {})
        inner |= {f"f:{WEIGHTS_ANNOTATION}": {}, f"f:{VERSION_ANNOTATION}": {}}
    return fields
