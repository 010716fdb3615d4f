"""A version's download beside s5cmd's of the same objects from one SeaweedFS, in turns; prints a table in Markdown.

python -m benchmarks.store [--gigabytes 3] [--shards 4] [--rounds 6] [--apart] [--folder DIR]

Ours (`skill-store fetch`) hashes every byte and compares; s5cmd copies. Both are processes of their own, from their
start to their end, and write to the same disk. What is to come from the node's cache must come from there: a run whose
log says otherwise is refused, and so is one for which the server works. Times mean something on a machine that does
nothing else; seconds of processor are less easily disturbed. All contenders find the same: the objects in the server's
page cache, and free memory that the machine really has (`_memory_at_hand`); six rounds have every order of the three.
s5cmd is built once from its Go module, into the cache of the tests' programs.
"""

from __future__ import annotations

import argparse
import itertools
import mmap
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import binary
from tests.seaweedfs import SeaweedFS

from skill_contract.manifest import Manifest
from skill_store import layout
from skill_store.repository import Repository

SMALL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja")
WANTED_SHARE = 0.7
"""Of s5cmd's speed."""
IDLE_SHARE = 0.1
"""Of the processor that a server needs for a fetch: as much at most for one that comes from the node's cache."""
PLAIN, CACHED = "skill-store fetch", "skill-store fetch, from the node's cache"
_HUGE_PAGE = 2 << 20
_AHEAD_BYTES = 256 << 20
"""So much memory more is given back than files have taken up: what a contender writes in a quarter of a second."""
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Run:
    """One download."""

    seconds: float
    user: float
    """Seconds of processor of the client."""
    system: float
    """The same, in the kernel."""
    server_cpu: float


@dataclass(frozen=True)
class Contender:
    name: str
    command: Callable[[Path], Sequence[str | Path]]
    """From the folder to fill."""
    never: Sequence[str] = ()
    """Words that its log must not have, once the caches are filled."""


def main() -> None:
    """Runs all contenders in turns, in every order; exits with 1 below the wanted share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--shards", type=int, default=4, help="files that the weights are in")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="where everything lies meanwhile (default: the temporary folder)")
    parser.add_argument(
        "--apart", action="store_true", help="server and client each on half of the processors, as on two machines"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the server and its data go, too
    s5cmd = binary("s5cmd")
    with (
        tempfile.TemporaryDirectory(dir=options.folder, prefix="store-") as name,
        _served(Path(name), apart=options.apart) as server,
    ):
        folder = Path(name)
        version, size = _publish(server, folder / "model", int(options.gigabytes * 1e9), options.shards)
        contenders = _contenders(s5cmd, server, version, folder / "cache", 2 * options.gigabytes)
        runs = _measure(contenders, folder, options.rounds, size)
    print(table(runs, size, options.shards))
    _require_idle_server(runs)
    share = _share(runs[PLAIN], runs["s5cmd cp"])
    print(f"\nskill-store fetch has {share:.0%} of s5cmd's speed; at least {WANTED_SHARE:.0%} are wanted")
    sys.exit(share < WANTED_SHARE)


@contextmanager
def _served(folder: Path, *, apart: bool) -> Iterator[SeaweedFS]:
    (folder / "server").mkdir()
    processors = sorted(os.sched_getaffinity(0))
    if apart:
        os.sched_setaffinity(0, processors[: len(processors) // 2])  # children inherit: first the server, then clients
    with SeaweedFS.start(folder / "server") as server:
        os.environ |= server.environment
        if apart:
            os.sched_setaffinity(0, processors[len(processors) // 2 :])
        yield server


def _publish(server: SeaweedFS, folder: Path, size: int, shards: int) -> tuple[str, int]:
    """Returns a version with so many bytes of weights, as `<repository>/versions/<version>@<digest>`, and its size."""
    folder.mkdir()
    for name in SMALL_FILES:
        (folder / name).write_text(f"{name}\n" * 1000)
    for number in range(shards):
        with (folder / f"model-{number + 1:05}-of-{shards:05}.safetensors").open("wb") as shard:
            for start in range(0, size // shards, 1 << 24):
                shard.write(os.urandom(min(1 << 24, size // shards - start)))
    repository = Repository(f"s3://{server.create_bucket()}/m")
    ref = repository.publish(folder, Manifest(files=(), sequence=0))
    shutil.rmtree(folder)
    return layout.version_uri(repository.uri, ref), sum(file.size for file in repository.manifest(ref).files)


def _contenders(s5cmd: Path, server: SeaweedFS, version: str, cache: Path, cache_gb: float) -> list[Contender]:
    ours = [sys.executable, "-m", "skill_store.cli", "fetch", "--weights", version, "--to"]
    objects = f"{version.partition('@')[0]}/*"
    theirs = [s5cmd, "--log=error", f"--endpoint-url={server.endpoint}", "cp"]
    return [
        Contender("s5cmd cp", lambda to: [*theirs, objects, f"{to}/"]),
        Contender(PLAIN, lambda to: [*ours, to]),
        Contender(
            CACHED,
            # Without a limit of its own the cache leaves 15 % of the volume free, and helps nobody on a full one.
            lambda to: [*ours, to, "--cache", cache, "--cache-gb", f"{cache_gb:g}"],
            never=("comes without the cache", "for all pods of this node", "in the cache was damaged"),
        ),
    ]


def _measure(contenders: Sequence[Contender], folder: Path, rounds: int, size: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    orders = itertools.cycle(itertools.permutations(contenders))
    for number in range(-1, rounds):  # the first fills the caches, and is not counted
        for contender in contenders if number < 0 else next(orders):
            _level(folder)
            with _memory_at_hand(size):
                run = _run(
                    contender.command(folder / "out"), folder / "out", size, contender.never if number >= 0 else ()
                )
            print(f"round {number + 1}: {contender.name}: {run.seconds:.2f} s", file=sys.stderr)
            if number >= 0:
                runs[contender.name].append(run)
    return runs


def _level(folder: Path) -> None:
    """Removes what the contender before has left, on the disk and on its way there; reads what the server will."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    os.sync()
    for path in (folder / "server").rglob("*.dat"):
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass


@contextmanager
def _memory_at_hand(size: int) -> Iterator[None]:
    """Holds so much memory, and gives it back as files take it up.

    Otherwise the slower contender would pay for more than its own work: some virtual machines hand memory that was free
    for two seconds to their host, and getting it back costs ten times what writing to it does.
    """
    done = threading.Event()
    with mmap.mmap(-1, -size // _HUGE_PAGE * -_HUGE_PAGE) as held:
        with suppress(OSError):  # a kernel without huge pages, which are given back for nothing
            held.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, len(held), _HUGE_PAGE):
            held[start : start + _HUGE_PAGE] = bytes(_HUGE_PAGE)
        giving = threading.Thread(target=_give_back, args=(held, done))
        giving.start()
        try:
            yield
        finally:
            done.set()
            giving.join()


def _give_back(held: mmap.mmap, done: threading.Event) -> None:
    given, before = 0, _file_bytes()
    while given < len(held) and not done.wait(_LOOK_SECONDS):
        due = min(len(held), max(0, _file_bytes() - before) + _AHEAD_BYTES) // _HUGE_PAGE * _HUGE_PAGE
        if due > given:
            held.madvise(mmap.MADV_DONTNEED, given, due - given)
            given = due


def _file_bytes() -> int:
    """Returns how much memory holds pages of files."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("nr_file_pages ")) * mmap.PAGESIZE


def _run(command: Sequence[str | Path], out: Path, size: int, never: Sequence[str]) -> Run:
    log = out.with_suffix(".log")
    before, started = _server_cpu(), time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    arrived = sum(path.stat().st_size for path in out.rglob("*") if path.is_file() and path.name != "manifest.json")
    if process.returncode or arrived != size:
        raise RuntimeError(f"{command}: exit code {process.returncode}, {arrived} bytes of {size}: {log.read_text()}")
    said = log.read_text()
    if any(words in said for words in never):
        raise RuntimeError(f"{command}: did not come from the cache: {said}")
    return Run(seconds, usage.ru_utime, usage.ru_stime, _server_cpu() - before)


def _server_cpu() -> float:
    """Returns the seconds of processor that the server has used: it is our only child that lasts."""
    ticks = 0
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _require_idle_server(runs: dict[str, list[Run]]) -> None:
    """Raises RuntimeError where the server worked for what came from the node's cache, which then it did not."""
    cached, plain = (statistics.median(run.server_cpu for run in runs[name]) for name in (CACHED, PLAIN))
    if cached > IDLE_SHARE * plain:
        raise RuntimeError(f"{CACHED}: the server needed {cached:.2f} s of processor, {plain:.2f} s without the cache")


def table(runs: dict[str, list[Run]], size: int, shards: int) -> str:
    """Returns the medians, with the least and the most, as a table in Markdown."""
    gigabytes = size / 1e9
    lines = [
        f"| {gigabytes:.2f} GB in {shards} files | s | GB/s | CPU s/GB, client | of it system | CPU s/GB, server |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, all_runs in runs.items():
        cells = (
            _spread([run.seconds for run in all_runs]),
            f"{gigabytes / statistics.median(run.seconds for run in all_runs):.2f}",
            _spread([(run.user + run.system) / gigabytes for run in all_runs]),
            _spread([run.system / gigabytes for run in all_runs]),
            _spread([run.server_cpu / gigabytes for run in all_runs]),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _share(ours: Sequence[Run], theirs: Sequence[Run]) -> float:
    return statistics.median(run.seconds for run in theirs) / statistics.median(run.seconds for run in ours)


if __name__ == "__main__":
    main()
