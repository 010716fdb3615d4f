"""Writes the tables of docs/metrics.md from what is really exposed: `make metrics`. A test holds the page against it.

Labels are seen on samples only, so both sides are shown one example of everything first; a family without one fails.
"""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from skill_contract.evaluation import Action, Alarm, Signature
from skill_operator.metrics import Metrics
from skill_trainer.progress import ProgressServer

PAGE = Path(__file__).parent / "metrics.md"
BLOCK = re.compile(r"(<!-- (\w+):begin[^\n]*-->\n).*?(<!-- \2:end -->)", re.DOTALL)
TIME = "2026-01-01T00:00:00Z"


def page_with_tables(page: str) -> str:
    """Returns the page with all between `<!-- operator:begin -->` and `<!-- operator:end -->`, and so on, new."""
    tables = {"operator": table(operator_page()), "trainer": table(trainer_page())}
    return BLOCK.sub(lambda block: f"{block[1]}{tables[block[2]]}{block[3]}", page)


def operator_page() -> str:
    """Returns what an operator exposes that has seen an update in all kinds of trouble."""
    metrics = Metrics("0.1.0")
    metrics.api_requests.labels("GET", "200").inc()
    metrics.stage_seconds.labels("Checked").observe(1)
    conditions = [{"type": name, "status": "True", "reason": name} for name in ("Stalled", "Queued")]
    rollback = {"reason": "NotFound", "message": "", "startedAt": TIME, "deadline": TIME}
    rollout = {"candidate": "c", "podsVerified": "1/2", "startedAt": TIME, "deadline": TIME, "rollback": rollback}
    for uid, phase in (("a", "Queued"), ("b", "Training")):
        status = {
            "phase": phase,
            "conditions": [condition | {"lastTransitionTime": TIME} for condition in conditions],
            "training": {"step": 1, "totalSteps": 2, "loss": 0.5, "etaSeconds": 60},
            "rollout": rollout,
        }
        metrics.census.take({"metadata": {"namespace": "team", "name": uid, "uid": uid}, "status": status})
    return generate_latest(metrics.registry).decode()


def trainer_page() -> str:
    """Returns what a trainer exposes that has taken a step, was probed, and has raised an alarm."""
    with ProgressServer(0) as server:
        alarm = Alarm(signature=Signature.NO_LOSS, step=1, action=Action.MARK, message="")
        server.update(seconds={"generate": 1.0}, scores={"retention": 1.0}, alarms=(alarm,))
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            return str(answer.read().decode())


def table(page: str) -> str:
    """Returns a Markdown table of all families of a page in Prometheus' text format.

    Raises:
        ValueError: a family has no sample.
    """
    families = [family for family in text_string_to_metric_families(page) if not family.name.endswith("_created")]
    rows = []
    for family in sorted(families, key=lambda family: family.name):
        if not family.samples:
            raise ValueError(f"{family.name} has no sample: add an example of it to {__file__}")
        labels = [f"`{label}`" for label in family.samples[0].labels if label != "le"]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |\n")
    return "| series | type | labels | |\n| --- | --- | --- | --- |\n" + "".join(rows)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page_with_tables(PAGE.read_text()))


if __name__ == "__main__":
    main()
