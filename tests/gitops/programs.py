"""Argo CD's and Flux's own code as processes that are asked, a line for a line (see tests/cluster/modules)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.binaries import binary

FILES = Path(__file__).parents[2] / "charts/skillupdate/files/gitops"
ARGOCD_CM, KUSTOMIZATION = FILES / "argocd-cm.yaml", FILES / "flux-kustomization.yaml"
Raw = dict[str, Any]


class Program:
    """A program that answers every list of objects with a list of what it says of each."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process

    def ask(self, objects: Sequence[Raw]) -> list[Raw]:
        """Returns the answers; raises AssertionError where the program has ended, with its last words."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(list(objects)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"{self._process.args} has ended: see its log"
        return json.loads(answer)


@contextmanager
def program(name: str, *args: str | Path, log: Path, **environment: str) -> Iterator[Program]:
    """Runs `argocd` or `flux`, as their sources say it, until the block ends."""
    with log.open("ab") as words:
        process = subprocess.Popen(
            [str(binary(name)), *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env=os.environ | environment,
        )
    try:
        yield Program(name, process)
    finally:
        process.kill()
        process.communicate()
        print(log.read_text()[-5000:])
