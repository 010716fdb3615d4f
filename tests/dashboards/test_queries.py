"""Every query of every panel, asked of a real Prometheus that has seen a fleet; a wrong one would be noticed."""

from __future__ import annotations

import functools
import math
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.prometheus import Prometheus
from tests.dashboards.conftest import Past
from tests.dashboards.history import ON_THE_WAY_BACK, SECONDS, STARTED, UNWIRED
from tests.dashboards.panels import FILES, Panel, Target, filled, load, panels, series

pytestmark = pytest.mark.alerts

DOCS = Path(__file__).parents[2] / "docs"
OF_PROMETHEUS = {"ALERTS"}
"""Its own series, which no history holds: that the chart's rules make it is shown in tests/alerts."""
ANY = (".*", "")
QUERIES = [(panel, target) for name in FILES for panel in panels(name) for target in panel.targets]


@functools.cache
def exposed() -> set[str]:
    """Returns the names of all samples that the operator and a trainer expose."""
    generate = runpy.run_path(str(DOCS / "generate.py"))
    pages = generate["operator_page"]() + generate["trainer_page"]()
    return set(re.findall(r"^(skill_\w+)", pages, re.MULTILINE))


def unknown(expr: str) -> set[str]:
    return series(expr) - exposed() - OF_PROMETHEUS


@pytest.mark.parametrize(("panel", "target"), QUERIES, ids=[f"{panel}-{target.ref}" for panel, target in QUERIES])
def test_query_has_data_on_the_life_of_a_fleet_and_the_labels_that_are_shown(past: Past, panel: Panel, target: Target):
    assert not unknown(target.expr)
    asked = target.expr.removesuffix(" or vector(0)")
    if series(asked) <= OF_PROMETHEUS:
        assert numbers(past.curves(target.expr)) == {0}
        return
    chosen = [ANY] if panel.dashboard == "overview" else [STARTED, ON_THE_WAY_BACK, UNWIRED]
    curves = [curve for each in chosen for curve in past.curves(asked, each)]
    assert numbers(curves), filled(asked, namespace=STARTED[0], update=STARTED[1])
    assert all(shown_labels(panel, target) <= curve["metric"].keys() for curve in curves)


def numbers(curves: list[dict[str, Any]]) -> set[float]:
    """Returns all finite values."""
    return {number for curve in curves for _, value in curve["values"] if math.isfinite(number := float(value))}


def shown_labels(panel: Panel, target: Target) -> set[str]:
    """Returns the labels that a panel shows of a query's answers."""
    if panel.kind != "table":
        return set(re.findall(r"\{\{(\w+)\}\}", target.legend))
    (organised,) = [each["options"] for each in panel.raw["transformations"] if each["id"] == "organize"]
    labels = {name for name in organised["renameByName"] if not name.startswith("Value")}
    return labels & set(re.findall(r"\w+", target.expr.partition(")")[0]))


def test_series_that_nobody_exposes_would_be_noticed():
    assert unknown("sum(skill_operator_updats)") == {"skill_operator_updats"}
    assert not unknown('histogram_quantile(0.5, skill_operator_reconcile_seconds_bucket) and ALERTS{alertname="x"}')


def test_query_that_selects_nothing_would_be_noticed(past: Past):
    assert not past.curves('skill_operator_update_phase{name="no-such-update"}')


@pytest.mark.parametrize("name", FILES)
def test_choices_have_values(past: Past, name: str):
    asked = [each for each in load(name)["templating"]["list"] if each["type"] == "query"]
    assert asked
    for variable in asked:
        question = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert question is not None
        selector = filled(question[1], namespace=STARTED[0])
        values = past.server.label_values(question[2], selector, past.end - SECONDS, past.end)
        assert STARTED[variable["name"] == "update"] in values


def test_table_has_one_row_for_each_unsettled_update(past: Past):
    (table,) = [panel for panel in panels("overview") if panel.kind == "table"]
    answers = {target.ref: past.values(target.expr, ANY) for target in table.targets}
    phases = {(row["metric"]["name"], row["metric"]["phase"]) for row in answers["A"]}
    assert phases == {
        ("contracts", "AwaitingApproval"),
        ("glossary", "RollingOut"),
        ("tone", "RollingBack"),
        ("chemistry", "Training"),
        ("velmora", "Soaking"),
    }
    assert [row["metric"]["name"] for row in answers["B"]] == ["chemistry"]
    assert {(row["metric"]["name"], row["metric"]["reason"]) for row in answers["F"]} == {("glossary", "NotWired")}


def test_what_the_overview_says_of_three_hours_is_what_has_happened(past: Past):
    (verdicts, rollbacks) = (
        past.values(f"sum by ({label}) (skill_operator_{name})")
        for name, label in (("gate_verdicts_total", "verdict"), ("rollbacks_total > 0", "reason"))
    )
    assert {row["metric"]["verdict"]: row["value"][1] for row in verdicts} == {"Passed": "8", "Rejected": "1"}
    assert {row["metric"]["reason"]: row["value"][1] for row in rollbacks} == {"DigestMismatch": "2"}


def test_prometheus_would_refuse_a_query_that_is_none(past: Past):
    assert isinstance(past.server, Prometheus)
    with pytest.raises(Exception, match="400"):
        past.values("sum(")
