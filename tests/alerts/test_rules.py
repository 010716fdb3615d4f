"""Every alert rule by promtool's unit tests: it fires on the series that it is for, and not on its neighbours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.prometheus import RULES, made_fast, promtool, rules

pytestmark = pytest.mark.alerts

PAGE = Path(__file__).parents[2] / "docs/alerts.md"
Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, a sample a minute from time 0; asked after so many minutes."""

    fires: Series
    quiet: Series
    minutes: int = 30


def total(name: str, labels: str, notation: str) -> Series:
    return {f"skill_operator_{name}{{{labels}}}": notation}


def update(name: str, value: str = "0x120", **labels: str) -> Series:
    """A gauge of one update; the value is Unix seconds, and the test's time begins at 0."""
    named = {"namespace": "team", "name": "refund", **labels}
    return total(name, ",".join(f'{key}="{text}"' for key, text in named.items()), value)


def passes(ok: str, error: str = "0x120", crash: str = "0x120") -> Series:
    results = {"ok": ok, "error": error, "crash": crash}
    return {
        key: v for r, text in results.items() for key, v in total("reconciles_total", f'result="{r}"', text).items()
    }


def requests(**codes: str) -> Series:
    named = {code.strip("_"): text for code, text in codes.items()}
    return {k: v for c, text in named.items() for k, v in total("api_requests_total", f'code="{c}"', text).items()}


def watch(written: str, seen: str) -> Series:
    return total("last_status_write_timestamp_seconds", "", written) | total(
        "last_watch_event_timestamp_seconds", 'kind="SkillUpdate"', seen
    )


def work(at_work: int, last: str) -> Series:
    return total("reconcilers_active", "", f"{at_work}x120") | total(
        "last_successful_reconcile_timestamp_seconds", "", last
    )


def slow(faster: str, slower: str) -> Series:
    return total("reconcile_seconds_bucket", 'le="3"', faster) | {
        **total("reconcile_seconds_bucket", 'le="60"', slower),
        **total("reconcile_seconds_bucket", 'le="+Inf"', slower),
    }


def verdicts(passed: str, rejected: str) -> Series:
    return total("gate_verdicts_total", 'verdict="Passed"', passed) | total(
        "gate_verdicts_total", 'verdict="Rejected"', rejected
    )


def rollbacks(reason: str, notation: str) -> Series:
    return total("rollbacks_total", f'reason="{reason}"', notation)


CASES = {
    "SkillOperatorDown": Case({"up": "0x60"}, total("build_info", 'version="1"', "1x60")),
    "SkillOperatorRestarting": Case(
        total("start_timestamp_seconds", "", "0 60 120 180 180x60"), total("start_timestamp_seconds", "", "0 60 120x60")
    ),
    "SkillOperatorNotReconciling": Case(work(3, "0x60"), work(0, "0x60")),
    "SkillOperatorWatchSilent": Case(watch("0+60x60", "60x60"), watch("900x60", "901x60")),
    "SkillOperatorEventLoopBlocked": Case(
        total("event_loop_lag_seconds", "", "0+1x60"), total("event_loop_lag_seconds", "", "0.2x60")
    ),
    "SkillOperatorPassesFail": Case(passes("0+4x60", error="0+6x60"), passes("0+6x60", error="0+4x60")),
    "SkillOperatorPassCrashed": Case(passes("0+9x60", crash="0x25 1x60"), passes("0+9x60", error="0+9x60")),
    "SkillOperatorApiErrors": Case(
        requests(_200="0+7x60", none="0+1x60", _503="0+2x60"), requests(_200="0+7x60", _404="0+9x60", _409="0+9x60")
    ),
    "SkillOperatorSlow": Case(slow("0+9x60", "0+10x60"), slow("0+10x60", "0+10x60"), minutes=45),
    "SkillUpdateStuck": Case(
        update("update_progress_timestamp_seconds"), update("update_progress_timestamp_seconds", "0+60x120"), minutes=70
    ),
    "SkillUpdateStalled": Case(
        update("update_stalled", "1x60", reason="NotWired"), update("update_stalled", "1x60", reason="RollbackFailed")
    ),
    "SkillUpdateQueueWaitLong": Case(
        update("update_waiting_timestamp_seconds", "-20000x60", phase="Queued"),
        update("update_waiting_timestamp_seconds", "-20000x60", phase="Suspended"),
    ),
    "SkillUpdateApprovalWaitLong": Case(
        update("update_waiting_timestamp_seconds", "-86400x60", phase="AwaitingApproval"),
        update("update_waiting_timestamp_seconds", "-80000x60", phase="AwaitingApproval"),
    ),
    "SkillUpdateRolledBack": Case(
        rollbacks("DigestMismatch", "0x20 1x60"), rollbacks("Deleting", "0x20 1x60") | rollbacks("NotFound", "5x60")
    ),
    "SkillUpdateRollbackFailed": Case(
        update("update_stalled", "1x60", reason="RollbackFailed"), update("update_stalled", "1x60", reason="NotWired")
    ),
    "SkillUpdateServingUnverified": Case(
        update("update_rollback_timestamp_seconds"), update("update_rollback_timestamp_seconds", "1200x60"), minutes=40
    ),
    "SkillUpdateGateRejections": Case(
        verdicts("0x60 2x120", "0x60 4x120"), verdicts("0x60 1x120", "0x60 2x120"), minutes=120
    ),
    "SkillTrainingHeartbeatLost": Case(
        total("events_total", 'reason="HeartbeatLost"', "0x20 1x60"),
        total("events_total", 'reason="Resumed"', "0x20 1x60"),
    ),
    "SkillTrainingRestarts": Case(
        total("training_restarts_total", "", "0x20 7x400"),
        total("training_restarts_total", "", "0x20 3x400"),
        minutes=60,
    ),
    "SkillTrainingAlarm": Case(
        {'skill_trainer_alarm{namespace="team",pod="p",signature="EntropyCollapse"}': "0x60"},
        {'skill_trainer_step{namespace="team",pod="p"}': "5x60"},
    ),
}


def test_every_rule_has_a_case():
    assert rules().keys() == CASES.keys()


def test_promtool_accepts_the_rules():
    assert f"{len(CASES)} rules found" in promtool("check", "rules", "--lint=all", RULES)


@pytest.fixture(scope="module")
def verdict_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases in one file of promtool's; a failure shows the expression, with the alert's name."""
    groups = [group for name, case in CASES.items() for group in (_group(name, case, True), _group(name, case, False))]
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": groups}
    path = tmp_path_factory.mktemp("promtool") / "rules_test.yaml"
    path.write_text(yaml.safe_dump(document, width=1000))
    return path


def _group(alert: str, case: Case, fires: bool) -> dict[str, Any]:
    series = case.fires if fires else case.quiet
    expected = [{"labels": "{}", "value": 1}] if fires else []
    firing = f'max(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    return {
        "name": f"{alert} {'fires' if fires else 'stays quiet'}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{case.minutes}m", "exp_samples": expected}],
    }


def test_every_rule_fires_on_what_it_is_for_and_on_nothing_else(verdict_file: Path):
    assert "SUCCESS" in promtool("test", "rules", verdict_file)


def test_a_case_that_is_wrong_is_noticed(verdict_file: Path, tmp_path: Path):
    """The way in which the cases above ask would see a rule that does not fire."""
    document = yaml.safe_load(verdict_file.read_text())
    document["tests"] = document["tests"][:1]
    document["tests"][0]["promql_expr_test"][0]["exp_samples"] = []
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(document, width=1000))
    with pytest.raises(AssertionError, match=r"SkillOperatorDown.*\n.*exp: nil"):
        promtool("test", "rules", wrong)


@pytest.mark.parametrize("alert", CASES)
def test_rule_says_how_bad_it_is_what_it_means_and_what_to_do(alert: str):
    rule = rules()[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{alert.lower()}"
    assert re.search(rf"^### {alert}$", PAGE.read_text(), re.MULTILINE), "the page has no chapter of this alert"


def test_page_has_no_chapter_of_an_alert_that_is_not_there():
    assert set(re.findall(r"^### (Skill\w+)$", PAGE.read_text(), re.MULTILINE)) == set(CASES)


def test_durations_are_made_short_and_thresholds_stay():
    assert made_fast("expr: rate(x[10m]) > 60\nfor: 5m\n") == "expr: rate(x[5000ms]) > 60\nfor: 2500ms\n"
