"""A run's progress on a terminal; silent anywhere else."""

from __future__ import annotations

from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
