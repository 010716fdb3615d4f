"""A run's progress on a terminal; silent anywhere else."""

from __future__ import annotations

from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from skill_trainer.step_report import StepReport


class ProgressBar:
    """A line with stage, steps, remaining time and loss; a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        note = TextColumn("{task.fields[note]}")
        self._progress = Progress(*columns, note, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("Loading", total=None, note="")

    def update(self, **news: Any) -> None:
        """Shows what changed of stage, step, total and loss."""
        shown: dict[str, Any] = {}
        if "stage" in news:
            shown["description"] = str(news["stage"])
        if "step" in news:
            shown["completed"] = news["step"]
        if "total" in news:
            shown["total"] = news["total"]
        if news.get("loss") is not None:
            shown["note"] = f"loss {news['loss']:.4f}"
        self._progress.update(self._task, **shown)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class RunsBar:
    """Two lines for many runs: all of them with elapsed and remaining time, and the one at work; a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=True))
        self._progress = Progress(
            *columns, *times, note, console=console, disable=not console.is_terminal, speed_estimate_period=3600
        )
        self._done = 0
        self._all = self._progress.add_task("All runs", total=None, note="")
        self._one = self._progress.add_task("Measuring", total=None, note="")

    def runs(self, done: int, total: int) -> None:
        """Takes the optimiser steps of finished runs and those of all runs."""
        self._done = done
        self._progress.update(self._all, completed=done, total=total)

    def say(self, text: str) -> None:
        """Prints a line above the bars, on a terminal or not."""
        self._progress.console.print(text, highlight=False, soft_wrap=True)

    def step(self, label: str, report: StepReport, total: int) -> None:
        """Takes a step of the run at work."""
        self._progress.update(self._all, completed=self._done + report.step)
        if report.step == total:
            self._done += total
        self._progress.update(
            self._one, description=label, completed=report.step, total=total, note=f"loss {report.loss:.4f}"
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
