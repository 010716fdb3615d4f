"""Where a run works: its configuration, its folder in the repository, a scratch folder, and who listens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from skill_contract.step import TrainConfig
from skill_store.repository import Repository
from skill_store.runs import Run
from skill_trainer.parallel import ALONE, Crew
from skill_trainer.steps.stopping import Stop

SCRATCH = Path("/scratch")
"""Where a trainer pod mounts its large volume."""


class Voice(Protocol):
    """Whoever wants to know how far the run is: the progress server, a progress bar."""

    def update(self, **news: Any) -> None:
        """Takes what `ProgressServer.update` takes."""


@dataclass(frozen=True, slots=True)
class Workplace:
    config: TrainConfig
    repository: Repository
    run: Run
    folder: Path
    """Empty at the start, removed at the end."""
    device: torch.device
    voices: tuple[Voice, ...]
    stop: Stop
    crew: Crew = ALONE
    """Only the first process talks to `repository`, `run` and `voices`: the others have no voices."""

    def tell(self, **news: Any) -> None:
        """Tells everybody who listens; also the run's heartbeat."""
        for voice in self.voices:
            voice.update(**news)

    def between_answers(self) -> None:
        """Tells that the run is alive, and looks for SIGTERM: what was asked so far is asked again, nothing is lost."""
        self.tell()
        self.stop.between("measuring answers")

    def kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Returns a small file of the run, made and stored where it is not there yet.

        A restarted run neither repeats nor changes what an earlier attempt has measured, nor does one that is still at
        work on a lost node. All processes make it together.
        """
        stored = self.crew.first(lambda: self.run.get(name))
        if stored is None:
            made = make()
            stored = self.crew.first(lambda: self.run.keep(name, made))
        return stored


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields an empty folder in SKILL_SCRATCH, else in /scratch where that can be written, else wherever /tmp is."""
    wanted = os.environ.get("SKILL_SCRATCH") or (str(SCRATCH) if os.access(SCRATCH, os.W_OK) else None)
    with tempfile.TemporaryDirectory(dir=wanted, prefix="run-") as folder:
        yield Path(folder)
