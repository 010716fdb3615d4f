"""Counts false alarms and missed wrong weights of the golden proof: `python -m benchmarks.proof [--seeds 4]`.

For each seed a version is trained from SmolLM2-135M. Each engine then serves the right weights, those of before, and
those of another seed's version (the hardest: the same lesson in another order), and is asked the golden prompts. Prints
Markdown. Needs CTranslate2: `uv run --no-sync --with ctranslate2 python -m benchmarks.proof`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.smollm2 import smollm2

from benchmarks.proof.engines import Prove, ctranslate2, transformers_serve
from benchmarks.proof.subjects import Version, load, measure, taught
from skill_store.proof import PodProof

Engine = Callable[[Path], AbstractContextManager[Prove]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    seeds, started = parser.parse_args().seeds, time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        engines: dict[str, Engine] = {
            "CTranslate2, fp32": lambda folder: ctranslate2(folder, "float32"),
            "CTranslate2, 8 bit": lambda folder: ctranslate2(folder, "int8"),
            "`transformers serve`, fp32": lambda folder: transformers_serve(folder, "float32"),
            "`transformers serve`, bf16": lambda folder: transformers_serve(folder, "bfloat16"),
        }
        before = measure(load(smollm2()))
        versions: list[Version] = []
        for seed in range(seeds):
            versions.append(taught(seed, before, Path(root) / f"seed-{seed}"))
            print(f"seed {seed}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        old = Path(root) / "before"
        load(smollm2()).save(old, smollm2())
        print(_HEAD)
        for name, engine in engines.items():
            report(name, engine, versions, old)
    print(f"\n{seeds} seeds, {sum(len(each.golden.prompts) for each in versions)} golden prompts, "
          f"{time.monotonic() - started:.0f} s")  # fmt: skip


_HEAD = """\
| engine | served | proved | answers as recorded | nats a token, mean and largest | by text alone |
| --- | --- | --: | --: | --: | --: |"""


def report(name: str, engine: Engine, versions: list[Version], old: Path) -> None:
    """Prints three rows: what is served is right, the version before, and another seed's version."""
    proofs: dict[str, list[PodProof]] = {"the version": [], "the version before": [], "another seed's": []}
    folders = {old: "the version before"}
    for folder in [old, *(version.folder for version in versions)]:
        with engine(folder) as prove:
            for version in versions:
                what = "the version" if folder == version.folder else folders.get(folder, "another seed's")
                is_next = folder == versions[(versions.index(version) + 1) % len(versions)].folder
                if what != "another seed's" or is_next:
                    proofs[what].append(prove(version.golden))
    for what, made in proofs.items():
        print(row(name, what, made), flush=True)


def row(name: str, what: str, proofs: list[PodProof]) -> str:
    count = Counter(proof.proved for proof in proofs)
    nats = [proof.nats for proof in proofs if proof.nats is not None]
    told = f"{sum(nats) / len(nats):.4f}, {max(nats):.4f}" if nats else ""
    matched, asked = sum(proof.matched for proof in proofs), sum(proof.asked for proof in proofs)
    text = sum(proof.proved_by_text for proof in proofs)
    return f"| {name} | {what} | {count[True]} of {len(proofs)} | {matched} of {asked} | {told} | {text} |"


if __name__ == "__main__":
    main()
