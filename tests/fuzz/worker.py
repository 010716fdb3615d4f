"""One target in one process: led by atheris where that is there, by what code an input reaches; else by `mutation`.

The last line of its output is what it has seen, as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.bench import LIMIT_SECONDS, Bench
from tests.fuzz.mutation import Mutator

PACKAGES = ["skill_contract", "skill_operator", "skill_store", "skill_trainer"]
FOUND = "found: "


def main(name: str, inputs: int, seconds: float, seed: int) -> None:
    """Runs a target until it has had so many inputs, or so many seconds have gone by."""
    logging.disable(logging.CRITICAL)
    if importlib.util.find_spec("atheris"):
        _guided(name, inputs, seconds, seed)
    else:
        from tests.fuzz.targets import TARGETS

        print(FOUND + json.dumps(plain(Bench(TARGETS[name]), inputs, seconds, seed).facts()))


def plain(bench: Bench, inputs: int, seconds: float, seed: int) -> Bench:
    """Returns the bench after inputs that mutation alone has made."""
    chance = random.Random(seed)
    deadline = time.monotonic() + seconds
    for data in Mutator(bench.target.seeds(), chance).inputs():
        if bench.inputs >= inputs or time.monotonic() > deadline:
            return bench
        bench.feed(data)
    return bench


def _guided(name: str, inputs: int, seconds: float, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=PACKAGES):
        from tests.fuzz.targets import TARGETS

    bench = Bench(TARGETS[name])
    seeds = list(bench.target.seeds())
    deadline = time.monotonic() + seconds

    def one(data: bytes) -> None:
        bench.feed(data)
        if bench.inputs >= inputs or time.monotonic() > deadline:
            print(FOUND + json.dumps(bench.facts()), flush=True)
            os._exit(0)  # Fuzz() never returns

    def custom(data: bytes, most: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.5:
            return Mutator(seeds, chance).changed(bytes(data) or seeds[0])[:most]
        return atheris.Mutate(data, most)

    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds):
            (Path(corpus) / f"{number:04}").write_bytes(data)
        options = [
            f"-seed={seed}",
            "-max_len=16384",
            "-len_control=0",
            "-rss_limit_mb=4096",
            f"-timeout={int(4 * LIMIT_SECONDS)}",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], one, custom_mutator=custom)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
