"""One update in depth: where it is in its life, what it learns and keeps, where its time goes, how it is rolled out."""

from __future__ import annotations

from charts.dashboards.overview import PHASES
from charts.dashboards.parts import (
    NONE_IS_BEST,
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
    timeline,
)

_OPERATOR = 'namespace="$namespace", name="$update"'
_TRAINER = 'namespace="$namespace", sdft_dev_update="$update"'
"""The chart's PodMonitor gives series of training pods the pod's label sdft.dev/update."""
_ALARMS = f"max by (signature) (max_over_time(skill_trainer_alarm{{{_TRAINER}}}[$__range]))"


def update() -> str:
    """Returns the dashboard's JSON."""
    rows = [("Now", _now()), ("Learning", _learning()), ("Time", _time()), ("Rollout", _rollout())]
    namespace = choice("namespace", "Namespace", "label_values(skill_operator_update_phase, namespace)")
    name = choice("update", "SkillUpdate", 'label_values(skill_operator_update_phase{namespace="$namespace"}, name)')
    about = (
        "One SkillUpdate. The operator's series of an update end when it is settled, those of its training pod when "
        "that is gone: what became of it is in its status and its report."
    )
    return dashboard(UPDATE, "SkillUpdates / One update", about, rows, namespace, name, since="now-6h")


def _of_update(series: str, *by: str) -> str:
    return f"max by ({', '.join(by)}) (skill_operator_{series}{{{_OPERATOR}}})"


def _of_trainer(series: str) -> str:
    """One curve, whichever pod has trained: a pod that is replaced has a successor with another name."""
    return f"max(skill_trainer_{series}{{{_TRAINER}}})"


def _now() -> list[Panel]:
    return [
        stat_panel(
            "Phase",
            "Where it is in its life. Settled updates have no series; `kubectl get skillupdate` shows them.",
            Query(_of_update("update_phase", "phase"), "{{phase}}"),
            named=True,
            no_value="settled",
        ),
        stat_panel(
            "Trained",
            "Optimiser steps done, of all steps.",
            Query(f"{_of_update('training_step')} / {_of_update('training_total_steps')}"),
            unit="percentunit",
            no_value="not in training",
        ),
        stat_panel(
            "Left",
            "Until training ends, as the trainer expects; evaluation and rollout come after it.",
            Query(_of_update("training_eta_seconds")),
            unit="s",
            no_value="not in training",
        ),
        stat_panel(
            "Last sign",
            "Since when neither phase, step, heartbeat nor pod has changed. Nothing is shown while it waits for "
            "its turn or for a person.",
            Query(f"time() - {_of_update('update_progress_timestamp_seconds')}"),
            unit="s",
            steps=((None, "green"), (900, "orange"), (3600, "red")),
            no_value="waits or is settled",
            runbook="alerts.md#skillupdatestuck",
        ),
        stat_panel(
            "Needs somebody",
            "Why it cannot go on by itself. Its Ready condition has the sentence and the way out.",
            Query(_of_update("update_stalled", "reason"), "{{reason}}"),
            named=True,
            steps=((None, "orange"),),
            no_value="no",
            runbook="troubleshooting.md",
        ),
        stat_panel(
            "Alarms of training",
            "Signatures that the monitors have seen: the run goes wrong in a known way.",
            Query(f"count({_ALARMS}) or vector(0)"),
            steps=NONE_IS_BEST,
            runbook="alerts.md#skilltrainingalarm",
        ),
        timeline(
            "Life",
            "The phases it has gone through in the time shown. What is shorter than a scrape is not seen.",
            Query(_of_update("update_phase", "phase"), "{{phase}}"),
            colors=PHASES,
            height=7,
        ),
    ]


def _learning() -> list[Panel]:
    return [
        graph(
            "Loss and divergence",
            "Loss of each step, and how far student and teacher are apart on the student's own samples (nats per "
            "token). Both fall while the skill is learnt, and stay where nothing more is to be learnt.",
            Query(_of_trainer("loss"), "loss"),
            Query(_of_trainer("divergence"), "divergence"),
            runbook="report.md",
        ),
        graph(
            "Scores",
            "Share of right answers by gate, as last measured. probe_…: small samples while it trains; retention: "
            "the worst earlier suite, after divided by before; in_context_gain: the teacher before training.",
            Query(f"max by (gate) (skill_trainer_score{{{_TRAINER}}})", "{{gate}}"),
            unit="percentunit",
            runbook="gates.md",
        ),
        graph(
            "Entropy",
            "Of the student on its own samples, nats per token. A fall towards 0 is a student that says one thing "
            "only (EntropyCollapse).",
            Query(_of_trainer("entropy"), "entropy"),
            runbook="alerts.md#skilltrainingalarm",
        ),
        graph(
            "Norm of the gradient",
            "Before clipping. Growth over many steps, or a jump by an order of magnitude, is instability.",
            Query(_of_trainer("gradient_norm"), "norm"),
            span=12,
            runbook="report.md",
        ),
        table_panel(
            "What monitors have seen",
            "Signatures and the step at which each was seen first. The report has the curve, "
            "status.evaluation.alarms the sentence.",
            [Column("Signature", "signature"), Column("Step", "A", width=120)],
            Query(_ALARMS),
            no_value="nothing",
            height=8,
            span=12,
            runbook="alerts.md#skilltrainingalarm",
        ),
    ]


def _time() -> list[Panel]:
    parts = f"sum by (part) (rate(skill_trainer_part_seconds_total{{{_TRAINER}}}[$__rate_interval]))"
    return [
        graph(
            "Where the time goes",
            "Share of each part of a step. generate: the student's samples; teacher and student: their log- "
            "likelihoods; backward and optimizer: learning; probe: scores in between.",
            Query(f"{parts} / on () group_left () sum({parts} > 0)", "{{part}}"),
            unit="percentunit",
            stacked=True,
            span=12,
            most=1,
            runbook="report.md",
        ),
        bars(
            "Time of parts",
            "All of this training in the time shown, by part.",
            Query(
                f"sum by (part) (max_over_time(skill_trainer_part_seconds_total{{{_TRAINER}}}[$__range]))", "{{part}}"
            ),
            unit="s",
            span=6,
            no_value="not in training",
        ),
        graph(
            "Progress",
            "Optimiser steps done, and those of the whole run.",
            Query(_of_update("training_step"), "done"),
            Query(_of_update("training_total_steps"), "of"),
            span=6,
        ),
        graph(
            "Tokens per second",
            "Completion tokens that were sampled and trained on, per second of the last step.",
            Query(_of_trainer("tokens_per_second"), "tokens/s"),
        ),
        graph(
            "Memory",
            "Of the trainer's process, or of the accelerator where there is one.",
            Query(_of_trainer("memory_bytes"), "used"),
            unit="bytes",
            runbook="troubleshooting.md",
        ),
        graph(
            "Upload of checkpoints",
            "How long the last one took. Training goes on meanwhile; a pod that is stopped has 120 s in all.",
            Query(_of_trainer("checkpoint_seconds"), "upload"),
            unit="s",
            steps=((None, "green"), (100, "red")),
            runbook="operator.md",
        ),
    ]


def _rollout() -> list[Panel]:
    return [
        graph(
            "Pods proved",
            "Serving pods that are proved to have the candidate (on the way back: the version before), of all "
            "pods of the target.",
            Query(_of_update("update_pods_verified"), "proved"),
            Query(_of_update("update_pods"), "all"),
            span=12,
            runbook="serving.md",
        ),
        graph(
            "On the way back",
            "How long ago the rollout failed. Until every pod has left it the candidate may still be served; with "
            "rollback Manual it stays until somebody decides.",
            Query(f"time() - {_of_update('update_rollback_timestamp_seconds')}", "since the fault"),
            unit="s",
            steps=((None, "green"), (1800, "red")),
            span=12,
            runbook="alerts.md#skillupdateservingunverified",
        ),
    ]
