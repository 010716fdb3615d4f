"""Three hours of a small fleet, as a Prometheus would have scraped them: what the dashboards are tried on.

Time is played, and Kubernetes is `tests.operator.sim`; the plan, the statuses and the pages of metrics are those of the
real operator and trainer, and what the trainer tells is the series of a real run (docs/reports/published.json), scores
and verdicts those of three real runs.
"""

from __future__ import annotations

import copy
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest

from skill_contract.evaluation import Action, Alarm, Evaluation, Signature
from skill_contract.outcome import Outcome, Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import Step
from skill_operator.api import to_rfc3339
from skill_operator.metrics import Metrics
from skill_trainer.progress import ProgressServer
from tests.operator import raw
from tests.operator.sim import Sim

REPORTS = Path(__file__).parents[2] / "docs/reports"
SECONDS = 3 * 3600
"""From the first scrape to the last."""
STARTED = ("team-a", "velmora")
"""The update whose training pod is scraped, too; it is rolled out at the end."""
ON_THE_WAY_BACK, UNWIRED = ("team-b", "tone"), ("team-c", "glossary")
"""Two that are in trouble at the end."""
Life = Iterator[float]
"""What happens to an update: each value is how many seconds nothing does."""


class Fleet:
    """The operator's metrics, the updates that it sees, and the time."""

    def __init__(self, end: float) -> None:
        self.now = end - SECONDS
        self.metrics = Metrics("0.1.0", clock=lambda: self.now)
        self.metrics.census.clock = lambda: self.now
        self.trainer: ProgressServer | None = None
        self.lines: dict[str, list[str]] = {}

    def pages(self) -> Iterator[tuple[dict[str, str], str]]:
        """Yields each page that is scraped, with the labels that the chart's monitors give its series."""
        self.metrics.beat(lag=0.002)
        yield {"job": "skillupdate-metrics"}, generate_latest(self.metrics.registry).decode()
        if self.trainer:
            namespace, name = STARTED
            labels = {"namespace": namespace, "pod": f"{name}-train-x-0-y", "sdft_dev_update": name}
            with urllib.request.urlopen(f"http://127.0.0.1:{self.trainer.port}/metrics") as answer:
                yield labels, answer.read().decode()

    def scrape(self) -> None:
        """Takes down all samples of this moment."""
        for labels, page in self.pages():
            common = ",".join(f'{key}="{value}"' for key, value in labels.items())
            for line in page.splitlines():
                if not line.startswith("#"):
                    series, value = line.rsplit(" ", 1)
                    name, _, own = series.partition("{")
                    named = f"{common},{own}" if own else f"{common}}}"
                    self.lines.setdefault(name, []).append(f"{name}{{{named} {value} {self.now:.0f}")

    def text(self) -> str:
        """Returns all that was scraped, in the format that `promtool tsdb create-blocks-from openmetrics` reads."""
        return "\n".join([*(line for family in self.lines.values() for line in family), "# EOF", ""])


class Update:
    """One update and what becomes of it; each look of the operator is counted as the operator counts it."""

    def __init__(self, fleet: Fleet, namespace: str, name: str, **spec: Any) -> None:
        metadata = {"namespace": namespace, "uid": name, "creationTimestamp": to_rfc3339(fleet.now)}
        body = raw.update(name=name, metadata=metadata, **spec)
        self.fleet, self.created = fleet, fleet.now
        self.sim = Sim(body, raw.deployment(namespace=namespace))
        self.sim.now = fleet.now
        self.known: raw.Raw = {}

    def look(self) -> None:
        metrics, sim = self.fleet.metrics, self.sim
        sim.now = self.fleet.now
        sim.settle()
        metrics.census.take(sim.body)
        metrics.changed(self.known, sim.body["status"], self.created)
        self.known = copy.deepcopy(sim.body["status"])
        metrics.reconciles.labels("ok").inc()
        metrics.reconcile_seconds.observe(0.02)
        metrics.api_requests.labels("PATCH", "200").inc()
        metrics.last_success.set(self.fleet.now)
        for kind in ("SkillUpdate", "child", "Deployment"):
            metrics.last_watch.labels(kind).set(self.fleet.now)

    def checked(self, seconds: float = 45) -> Life:
        self.look()
        yield seconds
        self.sim.finish("check")
        self.look()

    def trained(self, report: dict[str, Any], seconds: float, *, preempted: bool = False) -> Life:
        """Trains for so long, with the losses of a real run."""
        self.sim.pod("train", raw.running(self.fleet.now))
        series = report["series"]
        for index, step in enumerate(series):
            self.sim.progress = Progress(
                stage=Stage.TRAINING, step=step["step"], total=len(series), loss=step["loss"],
                eta_seconds=seconds * (1 - index / len(series)), heartbeat=self.fleet.now,
            )  # fmt: skip
            self.look()
            yield seconds / len(series)
            if preempted and index == len(series) // 2:
                self.sim.pods[-1]["status"] = raw.ended(75, at=self.fleet.now)
                self.look()
                yield 30
                self.sim.pod("train", raw.running(self.fleet.now))

    def judged(self, report: dict[str, Any], result: Result = Result.SUCCEEDED) -> Outcome:
        """The last word of a training whose scores are those of a real run."""
        evaluation = Evaluation.model_validate(report["evaluation"])
        said = raw.outcome(Step.TRAIN, result, "" if result is Result.SUCCEEDED else report["outcome"])
        return said.model_copy(update={"evaluation": evaluation})


def report(name: str) -> dict[str, Any]:
    """Returns a run's document."""
    return dict(json.loads((REPORTS / f"{name}.json").read_text()))


def promoted(fleet: Fleet, namespace: str, name: str, seconds: float, *, preempted: bool = False) -> Life:
    """A life without trouble."""
    update, run = Update(fleet, namespace, name), report("published")
    yield from update.checked()
    yield from update.trained(run, seconds, preempted=preempted)
    update.sim.finish("train", update.judged(run))
    update.look()
    yield 60
    yield from _rolled_out(update)


def _rolled_out(update: Update) -> Life:
    update.sim.roll_first()
    update.look()
    yield 45
    update.sim.finish("prove")
    update.look()
    yield 30
    update.sim.roll()
    update.look()
    yield 60
    update.look()
    yield 15
    update.sim.finish("promote")
    update.look()


def rejected(fleet: Fleet, namespace: str, name: str, seconds: float) -> Life:
    """It has learnt the new skill and forgotten another."""
    update, run = Update(fleet, namespace, name), report("forgotten")
    yield from update.checked()
    yield from update.trained(run, seconds)
    update.sim.finish("train", update.judged(run, Result.REJECTED))
    update.look()


def rolled_back(fleet: Fleet, namespace: str, name: str, seconds: float, back: float) -> Life:
    """A pod finds other bytes than it should."""
    update, run = Update(fleet, namespace, name), report("published")
    yield from update.checked()
    yield from update.trained(run, seconds)
    update.sim.finish("train", update.judged(run))
    update.look()
    yield 60
    update.sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    _at(update.sim.serving, fleet.now)
    update.look()
    fleet.metrics.told("RollbackStarted")
    yield back
    update.sim.roll(digest=raw.PARENT[1])
    update.look()


def _at(pods: list[raw.Raw], now: float) -> None:
    """What has happened in these pods has happened now."""
    pods[:] = json.loads(json.dumps(pods).replace(to_rfc3339(raw.NOW), to_rfc3339(now)))


def approved_late(fleet: Fleet, namespace: str, name: str, seconds: float) -> Life:
    """It waits for a person."""
    update, run = Update(fleet, namespace, name, gates={"approval": "Manual"}), report("published")
    yield from update.checked()
    yield from update.trained(run, seconds)
    update.sim.finish("train", update.judged(run))
    update.look()
    yield SECONDS


def unwired(fleet: Fleet, namespace: str, name: str) -> Life:
    """Its Deployment does not fetch weights: it needs somebody."""
    update = Update(fleet, namespace, name)
    update.sim.deployment = raw.deployment(wired=False, namespace=namespace)
    update.sim.roll(digest=raw.PARENT[1])
    yield from update.checked()
    update.sim.finish("train")
    update.look()
    yield SECONDS


def watched(fleet: Fleet) -> Life:
    """The update whose trainer is scraped: the real run's steps, in their real time."""
    update, run = Update(fleet, *STARTED), report("published")
    yield from update.checked()
    series = run["series"]
    update.sim.pod("train", raw.running(fleet.now))
    with ProgressServer(0, clock=lambda: fleet.now) as server:
        fleet.trainer = server
        server.update(stage=Stage.TRAINING, total=len(series), scores={"in_context_gain": 1.0})
        for step in series:
            spent = sum(step["seconds"].values())
            server.update(
                step=step["step"], loss=step["loss"], divergence=step["divergence"], entropy=step["entropy"],
                gradient_norm=step["gradientNorm"], seconds=step["seconds"], memory_bytes=2.9e9,
                tokens_per_second=8 * step["completionTokens"] / spent,
                eta_seconds=(len(series) - step["step"]) * spent,
            )  # fmt: skip
            if step["step"] == 12:
                server.update(scores={"probe_new_skill": 0.55, "probe_retention": 0.98}, seconds={"probe": 6.0})
                server.update(last_checkpoint=12, checkpoint_seconds=4.2)
                alarm = Alarm(signature=Signature.ENTROPY_COLLAPSE, step=12, action=Action.MARK, message="m")
                server.update(alarms=(alarm,))
            update.sim.progress = server.progress
            update.look()
            yield spent
        server.update(stage=Stage.EVALUATING, scores={"new_skill": 0.8, "retention": 1.0})
        yield 45
        fleet.trainer = None
    update.sim.finish("train", update.judged(run))
    update.look()
    yield 30
    update.sim.roll_first()
    update.look()
    yield 45
    update.sim.finish("prove")
    update.look()
    yield 60
    update.sim.roll()
    update.look()
    yield SECONDS


def lives(fleet: Fleet) -> dict[float, Life]:
    """All lives by the second at which they begin."""
    return {
        300: promoted(fleet, "team-a", "refund-tool", 900),
        1500: rejected(fleet, "team-a", "medical-terms", 1500),
        2400: promoted(fleet, "team-b", "sql-dialect", 2100, preempted=True),
        3600: rolled_back(fleet, "team-a", "tool-calls", 1200, back=80),
        5400: approved_late(fleet, "team-b", "contracts", 1800),
        6000: unwired(fleet, *UNWIRED),
        6900: promoted(fleet, "team-c", "product-names", 1500),
        8700: rolled_back(fleet, *ON_THE_WAY_BACK, 900, back=SECONDS),
        9300: promoted(fleet, "team-c", "chemistry", 2400),
        SECONDS - 660: watched(fleet),
    }


def history(end: float, every: int) -> str:
    """Returns the three hours before a time (Unix seconds), scraped every so many seconds, as OpenMetrics."""
    fleet = Fleet(end)
    began = fleet.now
    due = [[began + at, life] for at, life in lives(fleet).items()]
    while fleet.now <= end:
        for entry in due:
            while entry[0] <= fleet.now:
                entry[0] += next(entry[1], float("inf"))
        fleet.scrape()
        fleet.now += every
    if fleet.trainer:
        fleet.trainer.close()
    return fleet.text()
