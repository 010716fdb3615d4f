"""The analysis of a candidate by a real Prometheus: the documents' own queries, on the series of a served model."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from skill_operator.api import parse
from skill_operator.observed import Question
from skill_operator.plan import asks
from skill_operator.prometheus import NO_ADDRESS, Prometheus
from skill_operator.steps.analysis import SAMPLES
from tests.alerts.prometheus import free_port, prometheus, promtool
from tests.operator import raw
from tests.operator.raw import PREVIOUS
from tests.operator.seen import why
from tests.operator.sim import Sim

pytestmark = pytest.mark.alerts

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE, PAGE = DOCS / "examples/full.yaml", DOCS / "serving.md"
OLD, NEW = ("support-llm-0", "support-llm-1"), ("support-llm-7d5f-a", "support-llm-7d5f-b")
EVERY, ROLLED_AGO, BEGAN_AGO = 10, 400, 1200
"""Seconds: between samples; since the pods changed; since the first sample."""
HISTOGRAMS = ("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds")
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0)
BEFORE = {"per_second": 2.0, "errors": 0.01, "seconds": 0.2, "cut": 0.02}
SCENES = {
    "as-before": BEFORE,
    "errors": BEFORE | {"errors": 0.2},
    "slow": BEFORE | {"seconds": 0.9},
    "endless": BEFORE | {"cut": 0.3},
    "idle": BEFORE | {"per_second": 0.02},
    "gone": {},
}
"""What pods on the candidate do, by namespace."""


def _pod(namespace: str, pod: str, scene: dict[str, float], since: float, until: float) -> Iterator[str]:
    """Yields vLLM's series as lines.

    Source: vLLM, docs/design/metrics.md: status codes in groups; `finished_reason` of requests.
    """
    labels = f'namespace="{namespace}",pod="{pod}"'
    asked = f'{labels},handler="/v1/chat/completions",method="POST"'
    for step in range(int((until - since) / EVERY) + 1):
        at, requests = since + step * EVERY, step * EVERY * scene["per_second"]
        for status, share in (("2xx", 1 - scene["errors"]), ("5xx", scene["errors"])):
            yield f'http_requests_total{{{asked},status="{status}"}} {requests * share} {at:.0f}'
        for reason, share in (("stop", 1 - scene["cut"]), ("length", scene["cut"])):
            yield f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {requests * share} {at:.0f}'
        for bound in (*BUCKETS, float("inf")):
            le = "+Inf" if bound == float("inf") else f"{bound}"
            count = requests if bound >= scene["seconds"] else 0
            for histogram in HISTOGRAMS:
                yield f'{histogram}_bucket{{{labels},le="{le}"}} {count} {at:.0f}'


def _history(now: float) -> str:
    lines: list[str] = []
    for namespace, scene in SCENES.items():
        for pod in OLD:
            lines += _pod(namespace, pod, BEFORE, now - BEGAN_AGO, now - ROLLED_AGO)
        for pod in NEW if scene else ():
            lines += _pod(namespace, pod, scene, now - ROLLED_AGO, now)
    families: dict[str, list[str]] = {}
    for line in lines:
        families.setdefault(line.partition("{")[0], []).append(line)
    return "\n".join([*(line for family in families.values() for line in family), "# EOF", ""])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that remembers the last twenty minutes."""
    folder = tmp_path_factory.mktemp("analysis")
    (folder / "history").write_text(_history(time.time()))
    promtool("tsdb", "create-blocks-from", "openmetrics", folder / "history", folder / "data")
    with prometheus(folder) as running:
        yield running.url


def of_example() -> Any:
    (spec,) = [d["spec"] for d in yaml.safe_load_all(EXAMPLE.read_text()) if d["kind"] == "SkillUpdate"]
    return spec["serving"]["analysis"]


def of_page() -> Any:
    """The lines for vLLM, to be pasted."""
    (block,) = re.findall(r"```yaml\n(  serving:.*?)```", PAGE.read_text(), re.DOTALL)
    return yaml.safe_load(block)["serving"]["analysis"]


def soaking(namespace: str, analysis: Any = None) -> Sim:
    """All pods on the candidate, as long ago as their series say."""
    body = raw.update(metadata={"namespace": namespace})
    body["spec"]["serving"] |= {"analysis": analysis or of_example(), "soakSeconds": 600}
    sim = Sim(body, raw.deployment(weights=PREVIOUS, namespace=namespace))
    sim.now = time.time() - ROLLED_AGO - 1
    sim.until_published()
    sim.now += 1
    sim.roll()
    for pod, name in zip(sim.serving, NEW, strict=True):
        pod["metadata"]["name"] = name
    sim.settle()
    sim.now = time.time()
    return sim


async def look(sim: Sim, url: str) -> Any:
    """One look of the analysis, by what the real Prometheus says."""
    async with Prometheus(url) as client:
        answers = await client.ask(asks(parse(sim.body), sim.observed(), sim.now))
    sim.answers = answers
    sim.look()
    assert sim.status.rollout is not None
    return sim.status.rollout.analysis


@pytest.mark.parametrize(
    ("namespace", "result", "words"),
    [
        ("as-before", "Passed", "2 metrics are within their limits"),
        ("errors", "Failed", "error-rate: 0.2 is above max 0.05"),
        ("slow", "Failed", "first-token-p95: "),
        ("idle", "Inconclusive", "too few samples of the candidate"),
        ("gone", "Inconclusive", "no data"),
    ],
)
async def test_example_tells_a_worse_candidate_from_one_like_before(
    server: str, namespace: str, result: str, words: str
):
    seen = await look(soaking(namespace), server)
    assert (seen.result, words in seen.message) == (result, True), seen
    values = {measured.name: measured for measured in seen.metrics}
    assert values["error-rate"].previous == pytest.approx(BEFORE["errors"], rel=0.01)
    assert values["first-token-p95"].previous == pytest.approx(0.2425, rel=0.01)


@pytest.mark.parametrize(
    ("namespace", "result", "words"),
    [
        ("as-before", "Passed", "4 metrics are within their limits"),
        ("errors", "Failed", "error-rate: 0.2 is above max 0.05"),
        ("slow", "Failed", "first-token-p95: "),
        ("endless", "Failed", "cut-off: "),
        ("idle", "Inconclusive", "too few samples of the candidate"),
    ],
)
async def test_lines_to_paste_tell_a_worse_candidate_from_one_like_before(
    server: str, namespace: str, result: str, words: str
):
    seen = await look(soaking(namespace, of_page()), server)
    assert (seen.result, words in seen.message) == (result, True), seen
    before = {measured.name: measured.previous for measured in seen.metrics}
    assert before == pytest.approx(
        {"error-rate": 0.01, "cut-off": 0.02, "first-token-p95": 0.2425, "token-p95": 0.2425}, rel=0.01
    )


async def test_candidate_that_fails_twice_is_rolled_back(server: str):
    sim = soaking("errors")
    await look(sim, server)
    sim.now += 30
    await look(sim, server)
    assert sim.status.phase == "RollingBack"
    assert "AnalysisFailed: 2 times in a row: error-rate: 0.2 is above max 0.05" in why(sim)[1]


async def test_query_that_prometheus_refuses_is_told_and_decides_nothing(server: str):
    sim = soaking("as-before")
    sim.body["spec"]["serving"]["analysis"] |= {"samples": "sum($pods"}
    seen = await look(sim, server)
    assert (seen.result, sim.status.phase) == ("Inconclusive", "Soaking")
    assert "Prometheus refuses the query: invalid parameter" in seen.message


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("http_requests_total", "12 series: aggregate them, as by sum()"),
        ("sum(nothing)", "no data"),
        ("sum(nothing) / sum(nothing) or vector(0) / 0", "the value is nan"),
        ("http_requests_total[1h]", "returns a matrix"),
    ],
)
async def test_what_is_no_value_says_why(server: str, query: str, words: str):
    async with Prometheus(server) as client:
        (answer,) = await client.ask([Question("x", query, at=time.time() - ROLLED_AGO)])
    assert answer.value is None
    assert words.replace("12 ", "") in answer.problem


async def test_answer_that_would_fill_the_memory_is_not_read_to_its_end(server: str):
    async with Prometheus(server) as client:
        (answer,) = await client.ask(
            [Question("x", "label_replace(vector(1), 'a', 'X', '', '')".replace("X", "x" * 300_000))]
        )
    assert (answer.value, "too much" in answer.problem) == (None, True), answer.problem[:200]


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:{port}"], ids=["no address", "nobody there"])
async def test_prometheus_that_cannot_be_asked_is_no_fault_of_the_candidate(url: str):
    sim = soaking("as-before")
    seen = await look(sim, url.format(port=free_port()))
    assert (seen.result, seen.failures) == ("Inconclusive", 0)
    assert (NO_ADDRESS in seen.message) or ("cannot be asked" in seen.message)
    assert SAMPLES not in seen.message
