"""Fuzzes everything that parses bytes of others, one process for each target, and writes what was seen as a table.

python -m tests.fuzz                                    # a million and a half inputs in all, half an hour of one core
python -m tests.fuzz --target repository --seconds 600  # one target, for longer
python -m tests.fuzz --write docs/security.md           # the table, into the page
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.worker import FOUND

ROOT = Path(__file__).parents[2]
_MEMORY = Path("/dev/shm")
"""Where a target's files lie, if there is one: some write hundreds of thousands. They go with the target's process."""
INPUTS = 64_000
"""Of a target whose share is 1."""
_HEAD = (
    "| target | what is read | inputs | taken | kinds of clean error | reached | slowest | defects |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> int:
    """Runs the targets that were asked for; returns 1 where one has a defect."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    parser.add_argument(
        "--inputs", type=int, default=INPUTS, help="inputs of an ordinary target (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, help="so long for each target instead of so many inputs")
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed makes the same inputs, but for atheris' guidance"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the page's fuzz marks")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in options.target or TARGETS:
        inputs = 10**12 if options.seconds else int(options.inputs * TARGETS[name].share)
        found[name] = _run(name, inputs, options.seconds or 10**6, options.seed)
        print(_row(name, TARGETS[name].what, found[name]), flush=True)
        for kind, defect in found[name]["defects"].items():
            print(f"\n{name}: {kind}\ninput (base64): {defect['input'][:2000]}\n{defect['why']}", flush=True)
    defects = sum(len(each["defects"]) for each in found.values())
    table = _table({name: TARGETS[name].what for name in found}, found, options.seed)
    print(table)
    if options.write:
        page = options.write.read_text()
        marks = r"(<!-- fuzz:begin -->\n).*?(<!-- fuzz:end -->)"
        options.write.write_text(re.sub(marks, lambda found: f"{found[1]}{table}\n{found[2]}", page, flags=re.DOTALL))
    return 1 if defects else 0


def _run(name: str, inputs: int, seconds: float, seed: int) -> dict[str, Any]:
    """Returns what a process of its own has seen of a target; one that died is a defect, too."""
    command = [sys.executable, "-m", "tests.fuzz.worker", name, str(inputs), str(seconds), str(seed)]
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": folder},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    facts = next((line.removeprefix(FOUND) for line in ran.stdout.splitlines() if line.startswith(FOUND)), None)
    if facts is None:
        why = {"input": "", "why": ran.stderr[-3000:]}
        died = f"the process died ({ran.returncode})"
        return {"inputs": 0, "accepted": 0, "errors": 0, "slowest": 0.0, "grown": 0, "defects": {died: why}}
    reached = re.findall(r"cov: (\d+)", ran.stderr)
    return {**json.loads(facts), "reached": reached[-1] if reached else ""}


def _row(name: str, what: str, facts: dict[str, Any]) -> str:
    cells = [
        name,
        what,
        f"{facts['inputs']:,}",
        f"{facts['accepted']:,}",
        facts["errors"],
        facts.get("reached", ""),
        f"{facts['slowest']:.2f} s",
        len(facts["defects"]),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _table(whats: dict[str, str], found: dict[str, dict[str, Any]], seed: int) -> str:
    total = sum(facts["inputs"] for facts in found.values())
    grown = max(facts["grown"] for facts in found.values())
    defects = sum(len(facts["defects"]) for facts in found.values())
    rows = [_row(name, whats[name], facts) for name, facts in found.items()]
    summary = f"{total:,} inputs, seed {seed}: {defects} defects. No process grew by more than {grown} MiB."
    return "\n".join([summary, "", _HEAD, *rows])


if __name__ == "__main__":
    sys.exit(main())
