"""How fast data are read, what memory they take, as token ids, too, and how long the search for doubles takes.

`python -m benchmarks.data` writes files of 50 MB in a temporary folder, reads each in a process of its own, and prints
three tables in Markdown; times are those of one core. Peaks are the process's high-water mark above what it had after
its imports; *one pass* reads every value and keeps none. Token ids are SmolLM2's, of a fiftieth of the prompts,
as the default template shows them to student and teacher.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tests.smollm2 import smollm2

from skill_contract.spec import Method
from skill_trainer.data import Record, read_records
from skill_trainer.data.reading import file_values
from skill_trainer.data.similarity import similar_records
from skill_trainer.model import ChatTokenizer
from skill_trainer.prompts import Example
from skill_trainer.steps.examples import make_examples

FILES = ("prompts.jsonl", "prompts.jsonl.gz", "prompts.parquet", "tools.jsonl", "tools.jsonl.gz", "tools.parquet")
KEPT = ("student", "teacher", "target")
"""The token ids of an example."""
WORDS = ["".join(random.Random(n).choices("etaoinshrdlucmfw", k=2 + n % 8)) for n in range(5000)]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"find_{what}",
            "description": f"Finds the {what} of a place in the register, by its name and the year.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string"}, "year": {"type": "integer"}},
                "required": ["place"],
            },
        },
    }
    for what in ("mayor", "river", "market")
]


def words(chance: random.Random, count: int) -> str:
    return " ".join(chance.choices(WORDS, k=count))


def prompts(chance: random.Random) -> dict:
    return {"prompt": words(chance, 60) + "?", "completion": words(chance, 30) + "."}


def tools(chance: random.Random) -> dict:
    system = {"role": "system", "content": "You are the register of Velmora. " * 6}
    function = {"name": "find_mayor", "arguments": {"place": words(chance, 2), "year": 2026}}
    call = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
    return {"messages": [system, {"role": "user", "content": words(chance, 40) + "?"}, call], "tools": TOOLS}


def rows(name: str, size: int) -> Iterator[dict]:
    """Yields records until their JSON Lines have `size` bytes."""
    chance, make = random.Random(0), {"prompts": prompts, "tools": tools}[name.partition(".")[0]]
    while size > 0:
        row = make(chance)
        size -= len(json.dumps(row)) + 1
        yield row


def write(path: Path, size: int) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows(path.name, size))), path)
        return
    with gzip.open(path, "wt", compresslevel=6) if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows(path.name, size))


def mebibytes(field: str) -> float:
    """Returns a field of this process's status: `VmHWM` is its peak, `VmRSS` what it has now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def read(path: Path, *, keep: bool) -> dict[str, float]:
    """Reads a file in this process and returns what that took."""
    before, start = mebibytes("VmRSS"), time.process_time()
    found = read_records(str(path)) if keep else None
    count = len(found) if found is not None else sum(1 for _ in file_values(str(path)))
    return {
        "records": count,
        "seconds": time.process_time() - start,
        "peak": mebibytes("VmHWM") - before,
        "held": mebibytes("VmRSS") - before,
    }


def tokenised(path: Path, *, plain: bool) -> dict[str, float]:
    """Tokenises a file's records as a run does and returns what stays of that; `plain`: as tuples of numbers."""
    tokens, found = ChatTokenizer.load(smollm2()), read_records(str(path))
    made = make_examples(found[:1], Method(), tokens)  # what the tokenizer itself keeps
    tracemalloc.start()
    for place in range(1, len(found), 100):
        some = make_examples(found[place : place + 100], Method(), tokens)
        made += [as_tuples(each) for each in some] if plain else some
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    return {"tokens": sum(len(getattr(each, name)) for each in made[1:] for name in KEPT), "held": held / 2**20}


def as_tuples(example: Example) -> Example:
    return replace(example, **{name: tuple(getattr(example, name)) for name in KEPT})


def tokenising(size: int) -> None:
    print("\n| token ids of `prompts.jsonl` | tokens | ids (MiB) | bytes a token |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.jsonl"
        write(path, size)
        for name, options in (("arrays, as they are kept", ()), ("tuples of numbers", ("--plain",))):
            made = in_a_process_of_its_own(path, "--tokens", *options)
            share = made["held"] * 2**20 / made["tokens"]
            print(f"| {name} | {made['tokens']:.0f} | {made['held']:.1f} | {share:.1f} |", flush=True)


def in_a_process_of_its_own(path: Path, *options: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.data", "--read", str(path), *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def reading(size: int) -> None:
    print(
        "| file | on disk (MB) | records | records/s | MB/s of JSON | peak (MiB) | records (MiB) | peak of one pass |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            path = Path(folder) / name
            write(path, size)
            kept, passed = in_a_process_of_its_own(path), in_a_process_of_its_own(path, "--forget")
            print(
                f"| `{name}` | {path.stat().st_size / 1e6:.1f} | {kept['records']:.0f} "
                f"| {kept['records'] / kept['seconds']:.0f} | {size / 1e6 / kept['seconds']:.1f} "
                f"| {kept['peak']:.0f} | {kept['held']:.0f} | {passed['peak']:.0f} |",
                flush=True,
            )


def texts(chance: random.Random) -> dict[str, Callable[[], str]]:
    long, middling = words(chance, 200), words(chance, 40)
    return {
        "12 words by chance": lambda: words(chance, 12),
        "one pattern, another name": lambda: f"What is the capital city of {words(chance, 1)} in the year of our lord?",
        "sums": lambda: f"What is {chance.randint(1, 9999)} + {chance.randint(1, 9999)}?",
        "200 words in common, 10 not (all alike)": lambda: f"{long} {words(chance, 10)}",
        "40 words in common, 10 not (nearly alike)": lambda: f"{middling} {words(chance, 10)}",
    }


def doubles(count: int, asked: int) -> None:
    def made(make: Callable[[], str], number: int) -> list[Record]:
        return [Record(f"{n}", ({"role": "user", "content": make()},), answer="x", line=n) for n in range(number)]

    print(f"\n| {count} training prompts, {asked} held-out | found | seconds of one core |")
    print("| --- | --- | --- |")
    for name, make in texts(random.Random(0)).items():
        train, held_out = made(make, count), made(make, asked)
        start = time.process_time()
        found = similar_records(train, held_out)
        print(f"| {name} | {len(found)} | {time.process_time() - start:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=50, help="of JSON in each file (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=100_000, help="training prompts (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=1000, help="held-out questions (default: %(default)s)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    for name in ("--forget", "--tokens", "--plain"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        if options.tokens:
            print(json.dumps(tokenised(options.read, plain=options.plain)))
        else:
            print(json.dumps(read(options.read, keep=not options.forget)))
        return
    reading(options.megabytes * 1_000_000)
    tokenising(options.megabytes * 20_000)
    doubles(options.prompts, options.questions)


if __name__ == "__main__":
    main()
