"""Argo CD and Flux show of an update what is true, in every state that the operator can write."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from skill_operator.api import Phase
from tests.gitops.programs import ARGOCD_CM, KUSTOMIZATION, Program, Raw, program
from tests.operator import raw
from tests.operator.seen import neighbour
from tests.operator.sim import Sim
from tests.operator.test_picture import STORIES

pytestmark = pytest.mark.gitops

PAGE = Path(__file__).parents[2] / "docs/gitops.md"
WORKS, WAITS, GOOD, BAD = (
    ("Progressing", "InProgress"),
    ("Suspended", "InProgress"),
    ("Healthy", "Current"),
    (
        "Degraded",
        "Failed",
    ),
)
"""What Argo CD and Flux show."""
EXPECTED = {
    Phase.PENDING: WORKS, Phase.QUEUED: WORKS, Phase.CHECKING: WORKS, Phase.TRAINING: WORKS, Phase.EVALUATING: WORKS,
    Phase.PUBLISHING: WORKS, Phase.ROLLING_OUT: WORKS, Phase.SOAKING: WORKS, Phase.ROLLING_BACK: WORKS,
    Phase.REVERTING: WORKS, Phase.SUSPENDED: WAITS, Phase.AWAITING_APPROVAL: WAITS, Phase.SUCCEEDED: GOOD,
    Phase.REVERTED: GOOD, Phase.REJECTED: BAD, Phase.FAILED: BAD, Phase.ROLLED_BACK: BAD,
}  # fmt: skip
"""Unless a person is needed: then it is bad in whatever phase."""


@pytest.fixture(scope="module")
def argocd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program("argocd", "health", ARGOCD_CM, log=tmp_path_factory.mktemp("argocd") / "log") as process:
        yield process


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program("flux", "health", KUSTOMIZATION, log=tmp_path_factory.mktemp("flux") / "log") as process:
        yield process


def suspended() -> Sim:
    sim = Sim(raw.update(suspend=True))
    sim.settle()
    return sim


def target_missing() -> Sim:
    sim = Sim()
    sim.until_published()
    return sim


def target_not_wired() -> Sim:
    sim = Sim(deployment=raw.deployment(wired=False))
    sim.until_published()
    return sim


def target_busy() -> Sim:
    sim = Sim(deployment=raw.deployment())
    sim.settle()
    sim.finish("check")
    sim.settle()
    sim.serving.pop()
    sim.finish("train")
    sim.settle()
    return sim


def without_jobset() -> Sim:
    sim = Sim(raw.update(training={"nodes": 2}))
    sim.serves_jobset = False
    sim.settle()
    return sim


def passed_by() -> Sim:
    sim = Sim()
    sim.neighbours = (neighbour(),)
    sim.settle()
    return sim


def deleted_while_training() -> Sim:
    sim = suspended()
    sim.delete()
    sim.settle()
    return sim


MORE = (suspended, target_missing, target_not_wired, target_busy, without_jobset, passed_by, deleted_while_training)


@cache
def shown() -> tuple[Raw, ...]:
    """Returns every different object that an API server would have shown in all the stories, as one of its own."""
    different: dict[str, Raw] = {}
    for story in (*STORIES, *MORE):
        for body in story().shown:
            different.setdefault(raw.pretty(body["status"]), body)
    return tuple(different.values())


def truth(body: Raw, kind: str) -> Raw:
    return next((c for c in body["status"].get("conditions", ()) if c["type"] == kind), {})


def expected(body: Raw) -> tuple[str, str]:
    if truth(body, "Stalled").get("status") == "True":
        return BAD
    return EXPECTED[Phase(body["status"]["phase"])]


def alive() -> list[Raw]:
    return [body for body in shown() if "deletionTimestamp" not in body["metadata"]]


def named(body: Raw) -> str:
    return f"{body['status'].get('phase')}: {truth(body, 'Ready').get('message')}"


def test_every_phase_is_among_them_and_a_person_is_needed_in_some():
    assert {body["status"]["phase"] for body in shown()} == set(Phase)
    needed = {body["status"]["phase"] for body in shown() if truth(body, "Stalled")}
    assert needed >= {"Pending", "RollingOut", "Succeeded"}


def test_argo_cd_shows_every_state_as_it_is(argocd: Program):
    verdicts = argocd.ask(alive())
    assert {named(b): v["status"] for b, v in zip(alive(), verdicts, strict=True)} == {
        named(body): expected(body)[0] for body in alive()
    }


def test_argo_cd_says_why(argocd: Program):
    for body, verdict in zip(alive(), argocd.ask(alive()), strict=True):
        ready = truth(body, "Ready")
        assert verdict["message"] == f"{ready['reason']}: {ready['message']}"


@pytest.mark.parametrize("rule", ["kstatus", "expressions"])
def test_flux_shows_every_state_as_it_is_with_and_without_expressions(flux: Program, rule: str):
    verdicts = flux.ask(alive())
    assert {named(b): v[rule] for b, v in zip(alive(), verdicts, strict=True)} == {
        named(body): expected(body)[1] for body in alive()
    }


def changed(body: Raw) -> Raw:
    """The same, after its spec was changed and before the operator has looked."""
    later = copy.deepcopy(body)
    later["metadata"]["generation"] += 1
    return later


def new() -> Raw:
    """As the API server shows an object that the operator has not seen: with the CRD's default status."""
    return raw.update() | {"status": {"observedGeneration": -1}}


def test_what_the_operator_has_not_seen_is_in_progress(argocd: Program, flux: Program):
    unseen = [new(), *map(changed, alive())]
    assert {verdict["status"] for verdict in argocd.ask(unseen)} == {"Progressing"}
    for rule in ("kstatus", "expressions"):
        assert {verdict[rule] for verdict in flux.ask(unseen)} == {"InProgress"}


def test_object_of_a_cluster_with_an_older_crd_is_not_taken_for_healthy(argocd: Program):
    assert (
        argocd.ask([raw.update(), {k: v for k, v in raw.update().items() if k != "status"}])
        == [{"status": "Progressing", "message": "the operator has not seen this spec yet"}] * 2
    )


def test_deleted_update_is_on_its_way_out(argocd: Program, flux: Program):
    leaving = [body for body in shown() if "deletionTimestamp" in body["metadata"]]
    assert leaving
    assert {verdict["status"] for verdict in argocd.ask(leaving)} == {"Progressing"}
    assert {verdict["kstatus"] for verdict in flux.ask(leaving)} == {"Terminating"}


def test_deployment_is_judged_by_argo_cd_itself(argocd: Program):
    """The customization is for one kind: the program does ask Argo CD's own rules for another."""
    (verdict,) = argocd.ask([raw.deployment()])
    assert verdict["status"] == "Healthy"


def _blocks() -> list[Any]:
    fences = PAGE.read_text().split("```")[1::2]
    return [yaml.safe_load(fence.removeprefix("yaml")) for fence in fences if fence.startswith("yaml")]


@pytest.mark.parametrize("file", [ARGOCD_CM, KUSTOMIZATION], ids=lambda file: file.stem)
def test_page_shows_what_is_shipped(file: Path):
    assert yaml.safe_load(file.read_text()) in _blocks()
