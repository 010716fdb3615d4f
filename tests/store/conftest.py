"""Both kinds of store under the same tests, and a model small enough to be damaged often."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from skill_contract.manifest import Golden, GoldenSet, Manifest, VersionRef
from skill_store.repository import Repository
from tests.seaweedfs import Bucket


@dataclass(frozen=True)
class Folder:
    """A repository in a folder, seen from behind, as `Bucket` is for S3."""

    root: Path

    @property
    def uri(self) -> str:
        return f"file://{self.root}"

    def contents(self) -> dict[str, bytes]:
        return {key: self.read(key) for key in self.keys("")}

    def keys(self, prefix: str = "") -> list[str]:
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(prefix) and not key.endswith(".lock"))

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).write_bytes(data)

    def delete(self, key: str) -> None:
        (self.root / key).unlink()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.store)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder | Bucket:
    """An empty place for a repository: a local folder, then a bucket."""
    if request.param == "folder":
        return Folder(tmp_path / "repository")
    bucket: Bucket = request.getfixturevalue("s3")
    return bucket


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a Hugging Face model, its weights 300 kB of noise."""
    return write_model(tmp_path / "model", seed=1)


def write_model(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(random.Random(seed).randbytes(300_000))
    return folder


def golden(count: int = 8) -> GoldenSet:
    """Prompts to which candidate and parent have different answers."""
    prompts = tuple(
        Golden(
            messages=({"role": "user", "content": f"question {number}"},),
            text=f"new answer {number}",
            parent_text=f"old answer {number}",
            max_new_tokens=16,
        )
        for number in range(count)
    )
    return GoldenSet(prompts=prompts)


def publish_child(repository: Repository, folder: Path, parent: VersionRef, skill: str = "tarn") -> VersionRef:
    """Publishes a trained model as the parent's successor, with a suite and golden prompts, as the trainer does."""
    (folder / ".skill/suites").mkdir(parents=True, exist_ok=True)
    (folder / f".skill/suites/{skill}.jsonl").write_text('{"prompt": "p", "answer": "a"}\n')
    (folder / ".skill/golden.json").write_text(golden().dump_json())
    sequence = repository.manifest(parent).sequence + 1
    manifest = Manifest(files=(), sequence=sequence, parent=parent, skill=skill, content_digest=f"sha256:{skill}")
    return repository.publish(folder, manifest)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def skill_store(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Starts the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "skill_store.cli", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FORKER = """
import json, os, sys
from skill_store.cli import main

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(job["environment"])
        for path, descriptor in ((job["out"], 1), (job["err"], 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        try:
            code = main(job["arguments"])
        except SystemExit as leaving:
            code = leaving.code
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """Runs the command line in a process of its own and returns exit code, output and errors.

    The processes are forked from one that has imported everything: a second each, in which nothing is tested, is saved.
    """
    folder = tmp_path_factory.mktemp("cli")
    with subprocess.Popen(python(FORKER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forker:

        def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
            out, err = folder / "out", folder / "err"
            job = {
                "arguments": arguments,
                "environment": {**os.environ, **environment},
                "out": str(out),
                "err": str(err),
            }
            print(json.dumps(job), file=forker.stdin, flush=True)
            return int(forker.stdout.readline()), out.read_text(), err.read_text()

        yield run
        forker.stdin.close()


def python(code: str, *arguments: str) -> Sequence[str]:
    return [sys.executable, "-c", code, *arguments]
