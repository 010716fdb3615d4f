"""The fleet: how many updates there are and what becomes of them, what they cost, and whether the operator is well."""

from __future__ import annotations

from charts.dashboards.parts import (
    NONE_IS_BEST,
    NONE_IS_GOOD,
    OVERVIEW,
    UPDATE,
    Column,
    Panel,
    Query,
    bars,
    choice,
    dashboard,
    graph,
    stat_panel,
    table_panel,
)

AT_WORK = "Pending|Checking|Training|Evaluating|Publishing|RollingOut|Soaking|Reverting"
WAITING = "Queued|Suspended|AwaitingApproval"
PHASES = {
    "Pending": "#8e8e99", "Queued": "#b7b7c0", "Suspended": "#6e6e78", "Checking": "light-blue", "Training": "blue",
    "Evaluating": "dark-blue", "AwaitingApproval": "yellow", "Publishing": "light-purple", "RollingOut": "purple",
    "Soaking": "dark-purple", "RollingBack": "red", "Reverting": "orange",
}  # fmt: skip
"""The phases of an update that is not settled, in the order of a life, and their colours on both dashboards."""
_OF_ONE = f"/d/{UPDATE}?${{datasource:queryparam}}&var-namespace=${{__data.fields.Namespace}}"
_CHOSEN = 'namespace=~"$namespace"'


def overview() -> str:
    """Returns the dashboard's JSON."""
    rows = [("Now", _now()), ("Results", _results()), ("Time and cost", _cost()), ("The operator", _operator())]
    namespaces = choice(
        "namespace", "Namespace", "label_values(skill_operator_update_phase, namespace)", all_of_them=True
    )
    about = "All SkillUpdates: what they do now, what became of them, what they cost, and whether the operator is well."
    return dashboard(OVERVIEW, "SkillUpdates / Overview", about, rows, namespaces, since="now-24h")


def _by_phase(phases: str) -> str:
    return f'sum(skill_operator_updates{{phase=~"{phases}"}})'


def _in_this_time(series: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) (increase(skill_operator_{series}[$__range]))"


def _each_hour(series: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) (increase(skill_operator_{series}[$__interval]))"


def _quantile(share: float, series: str, *by: str) -> str:
    return f"histogram_quantile({share}, {_in_this_time(f'{series}_bucket', 'le', *by)})"


def _now() -> list[Panel]:
    return [
        stat_panel(
            "Operator",
            "Version of the operator that is scraped. Without one nothing is begun, rolled out or rolled back; "
            "what serves stays as it is.",
            Query("max by (version) (skill_operator_build_info)", "{{version}}"),
            steps=((None, "green"),),
            named=True,
            no_value="none is scraped",
            runbook="alerts.md#skilloperatordown",
        ),
        stat_panel(
            "At work",
            "Updates that are checked, trained, evaluated, published or rolled out now.",
            Query(_by_phase(AT_WORK)),
        ),
        stat_panel(
            "Waiting",
            "Updates that wait for their turn (Queued) or for a person (Suspended, AwaitingApproval).",
            Query(_by_phase(WAITING)),
            runbook="alerts.md#skillupdatequeuewaitlong",
        ),
        stat_panel(
            "Need somebody",
            "Updates that cannot go on by themselves. Which and why: the table below, and each one's Ready condition.",
            Query("count(max by (namespace, name) (skill_operator_update_stalled)) or vector(0)"),
            steps=NONE_IS_BEST,
            runbook="alerts.md#skillupdatestalled",
        ),
        stat_panel(
            "On the way back",
            "Updates whose candidate is being replaced by the version before. Until that is done it may still be "
            "served.",
            Query("count(max by (namespace, name) (skill_operator_update_rollback_timestamp_seconds)) or vector(0)"),
            steps=NONE_IS_GOOD,
            runbook="alerts.md#skillupdateservingunverified",
        ),
        stat_panel(
            "Alerts",
            "Alerts of the chart's rules that fire now, of any severity. None also where the rules are not loaded.",
            Query('count(ALERTS{alertname=~"Skill.+", alertstate="firing"}) or vector(0)'),
            steps=NONE_IS_GOOD,
            runbook="alerts.md",
        ),
        _table(),
    ]


def _table() -> Panel:
    of_each = "max by (namespace, name)"
    return table_panel(
        "Updates that are not settled",
        "One row for each update that has not ended; a name leads to its own dashboard. Last sign: since when "
        "neither phase, step, heartbeat nor pod has changed; empty while it waits. Reasons are explained in "
        "docs/troubleshooting.md.",
        [
            Column("Namespace", "namespace", width=160),
            Column("Name", "name", link=f"{_OF_ONE}&var-update=${{__value.text}}&${{__url_time_range}}"),
            Column("Phase", "phase", colors=PHASES, width=160),
            Column("Trained", "B", unit="percentunit", gauge=True),
            Column("Left", "C", unit="s", width=110),
            Column("Pods proved", "D", unit="percentunit", gauge=True),
            Column("Last sign", "E", unit="s", steps=((None, "text"), (3600, "orange")), width=130),
            Column("Needs somebody", "reason", colors={"RollbackFailed": "red"}),
        ],
        Query(f"max by (namespace, name, phase) (skill_operator_update_phase{{{_CHOSEN}}})"),
        Query(
            f"{of_each} (skill_operator_training_step{{{_CHOSEN}}}) "
            f"/ {of_each} (skill_operator_training_total_steps{{{_CHOSEN}}} > 0)"
        ),
        Query(f"{of_each} (skill_operator_training_eta_seconds{{{_CHOSEN}}})"),
        Query(
            f"{of_each} (skill_operator_update_pods_verified{{{_CHOSEN}}}) "
            f"/ {of_each} (skill_operator_update_pods{{{_CHOSEN}}} > 0)"
        ),
        Query(f"time() - {of_each} (skill_operator_update_progress_timestamp_seconds{{{_CHOSEN}}})"),
        Query(f"max by (namespace, name, reason) (skill_operator_update_stalled{{{_CHOSEN}}})"),
        no_value="every update is settled",
        runbook="troubleshooting.md",
    )


def _results() -> list[Panel]:
    return [
        graph(
            "Updates by phase",
            "Unsettled updates over time, counted at each scrape. A phase that fills and does not empty is a "
            "queue: Queued waits for a model's turn or for Kueue, AwaitingApproval for people.",
            Query(
                f'sum by (phase) (skill_operator_updates{{phase=~"{AT_WORK}|{WAITING}|RollingBack"}}) > 0', "{{phase}}"
            ),
            colors=PHASES,
            stacked=True,
            span=12,
        ),
        graph(
            "Verdicts of the gates",
            "Trained skills that passed all gates, and those that did not. One rejection is the gate at work; "
            "many at once mean bad data, a changed base model or a gate that nobody can pass.",
            Query(_each_hour("gate_verdicts_total", "verdict"), "{{verdict}}"),
            colors={"Passed": "green", "Rejected": "orange"},
            counts=True,
            span=12,
            runbook="alerts.md#skillupdategaterejections",
        ),
        bars(
            "Gain of the new skill",
            "How many updates gained so much: share of held-out questions answered after training, less the share "
            "before. A bar counts what lies up to its number and above the one before; the first is a loss.",
            Query(_in_this_time("new_skill_gain_bucket", "le"), "{{le}}"),
            buckets=True,
            decimals=0,
            span=6,
            runbook="gates.md",
        ),
        bars(
            "What is left of earlier skills",
            "How many updates kept so much of the earlier skill that suffered most: score after, divided by score "
            "before. 1 is all of it.",
            Query(_in_this_time("worst_retention_ratio_bucket", "le"), "{{le}}"),
            buckets=True,
            decimals=0,
            span=6,
            runbook="gates.md",
        ),
        bars(
            "Rollouts",
            "How rollouts ended: the head moved to the new version, or everything is as before.",
            Query(_in_this_time("rollouts_total", "result"), "{{result}}"),
            decimals=0,
            span=6,
            runbook="serving.md",
        ),
        bars(
            "Rollbacks by reason",
            "Why rollouts were taken back. ProgressDeadline, EngineCrash and DigestMismatch are worth a look at once.",
            Query(f"{_in_this_time('rollbacks_total', 'reason')} > 0.5", "{{reason}}"),
            decimals=0,
            span=6,
            runbook="alerts.md#skillupdaterolledback",
            steps=((None, "orange"),),
        ),
    ]


def _cost() -> list[Panel]:
    return [
        bars(
            "Duration of stages",
            "Half of the updates (nine in ten) were through with a stage sooner than this. Checked: data, "
            "credentials and model; Trained: training and evaluation; RolledOut: until every pod was proved.",
            Query(_quantile(0.5, "stage_seconds", "stage"), "{{stage}}, half"),
            Query(_quantile(0.9, "stage_seconds", "stage"), "{{stage}}, nine in ten"),
            unit="s",
            span=8,
        ),
        bars(
            "Waits and ways back",
            "Queue: from the creation of an update to its turn. Rollback: from a fault to every pod back on the "
            "version before.",
            Query(_quantile(0.5, "queue_wait_seconds"), "queue, half"),
            Query(_quantile(0.9, "queue_wait_seconds"), "queue, nine in ten"),
            Query(_quantile(0.5, "rollback_seconds"), "rollback, half"),
            Query(_quantile(0.9, "rollback_seconds"), "rollback, nine in ten"),
            unit="s",
            span=8,
            runbook="alerts.md#skillupdatequeuewaitlong",
        ),
        graph(
            "GPU hours",
            "Hours that training pods held GPUs, counted when a training ends or its pod is replaced. 0 on CPUs.",
            Query("sum(increase(skill_operator_gpu_seconds_total[$__interval])) / 3600", "GPU hours"),
            counts=True,
            span=8,
        ),
        graph(
            "Faults in training",
            "Restarts after a fault (from the last checkpoint), pods that were stopped from outside, and trainers "
            "that stood still. A broken node or driver looks like many restarts.",
            Query("sum(increase(skill_operator_training_restarts_total[$__interval]))", "restarts"),
            Query("sum(increase(skill_operator_training_preemptions_total[$__interval]))", "preemptions"),
            Query('sum(increase(skill_operator_events_total{reason="HeartbeatLost"}[$__interval]))', "heartbeats lost"),
            counts=True,
            span=12,
            runbook="alerts.md#skilltrainingrestarts",
        ),
        graph(
            "Loss of all trainings",
            "Loss of the newest step of each update that trains now. Losses of different data cannot be compared; "
            "a curve that does not fall can be seen.",
            Query(f"max by (namespace, name) (skill_operator_training_loss{{{_CHOSEN}}})", "{{namespace}}/{{name}}"),
            span=12,
        ),
    ]


def _operator() -> list[Panel]:
    passes = "sum by (le) (rate(skill_operator_reconcile_seconds_bucket[$__rate_interval]))"
    return [
        graph(
            "Passes",
            "Looks at an update, by result. conflict: somebody wrote meanwhile, tried again at once; error: tried "
            "again within a minute; crash: a defect of the operator.",
            Query("sum by (result) (rate(skill_operator_reconciles_total[$__rate_interval]))", "{{result}}"),
            unit="ops",
            runbook="alerts.md#skilloperatorpassesfail",
        ),
        graph(
            "Duration of a pass",
            "A pass is a handful of requests to the API server, and is given up after a minute.",
            Query(f"histogram_quantile(0.5, {passes})", "half"),
            Query(f"histogram_quantile(0.99, {passes})", "all but one in a hundred"),
            unit="s",
            steps=((None, "green"), (10, "red")),
            runbook="alerts.md#skilloperatorslow",
        ),
        graph(
            "Requests to the API server",
            "By answer. 404 and 409 are part of the work; 401, 429, 5xx and none are not.",
            Query("sum by (code) (rate(skill_operator_api_requests_total[$__rate_interval]))", "{{code}}"),
            unit="reqps",
            runbook="alerts.md#skilloperatorapierrors",
        ),
        graph(
            "Lateness of the event loop",
            "All updates share one loop; while it is blocked nothing is watched, rolled out or rolled back.",
            Query("max(skill_operator_event_loop_lag_seconds)", "late"),
            unit="s",
            steps=((None, "green"), (5, "red")),
            span=6,
            runbook="alerts.md#skilloperatoreventloopblocked",
        ),
        graph(
            "Silence of the watches",
            "How long each watch has brought nothing. That is normal where nothing changes; a silence that goes "
            "on while statuses are written is not.",
            Query("time() - max by (kind) (skill_operator_last_watch_event_timestamp_seconds)", "{{kind}}"),
            Query("time() - max(skill_operator_last_status_write_timestamp_seconds > 0)", "last status written"),
            unit="s",
            span=6,
            runbook="alerts.md#skilloperatorwatchsilent",
        ),
        graph(
            "Memory",
            "Of the operator's process. The chart's limit is 512 MiB.",
            Query("max(skill_operator_process_resident_memory_bytes)", "resident"),
            unit="bytes",
            span=6,
            runbook="scale.md",
        ),
        graph(
            "Processor",
            "Of the operator's process, in cores. It has no limit in the chart.",
            Query("sum(rate(skill_operator_process_cpu_seconds_total[$__rate_interval]))", "cores"),
            span=6,
            runbook="scale.md",
        ),
    ]
