"""`make wheel`: the wheel as somebody gets it who has no checkout, with each extra in an empty environment.

Installs from the registries, which takes minutes and gigabytes for the trainer; tests/test_wheel.py has the cheap part.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs/reports/published.json"
COMMANDS = {
    "kubectl": (["kubectl-skill", "--kubeconfig", "nowhere", "list"], ["kubectl_complete-skill", "sta"]),
    "store": (["skill-store", "--help"], ["skill-store", "import", "nowhere", "{folder}/repository"]),
    "operator": (["skill-operator", "--help"], ["skill-operator", "plan", str(ROOT / "docs/examples/minimal.yaml")]),
    "trainer": (
        ["skill-trainer", "--help"],
        ["skill-trainer", "report", str(REPORT), "--out", "{folder}/report.html"],
        [
            "kubectl-skill",
            "new",
            "x",
            "--model",
            "s3://m",
            "--data",
            "{train}",
            "--held-out",
            "s3://q",
            "--at",
            "s3://d",
        ],
    ),
}
"""What is tried with an extra. Importing from nowhere, and no cluster, are said in a sentence."""
MISTAKES = {"import": 42, "list": 5}


def build(folder: Path) -> Path:
    """Builds the wheel with the backend of this environment and returns its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_commands(programs: Path, extra: str, folder: Path) -> None:
    """Runs the commands of an extra outside of the checkout; fails where one does not end as it has to."""
    train = folder / "train.jsonl"
    train.write_text('{"prompt": "What is a heron?", "completion": "A bird."}\n')
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    for command in COMMANDS[extra]:
        program, *words = (word.format(folder=folder, train=train) for word in command)
        done = subprocess.run(
            [str(programs / program), *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        expected = next((code for word, code in MISTAKES.items() if word in words), 0)
        assert done.returncode == expected, f"{command} ended with {done.returncode}:\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", default=[*COMMANDS], help="default: %(default)s")
    parser.add_argument("--uv", required=True, help="the program uv")
    parser.add_argument("--out", type=Path, required=True, help="where the wheel goes")
    options = parser.parse_args(arguments)
    subprocess.run(
        [options.uv, "build", "--quiet", "--wheel", "--out-dir", str(options.out.resolve())], cwd=ROOT, check=True
    )
    wheel = max(options.out.glob("*.whl"), key=lambda path: path.stat().st_mtime).resolve()
    print(f"{wheel.name}, {wheel.stat().st_size / 1000:.0f} kB")
    for extra in options.extras:
        with tempfile.TemporaryDirectory() as work:
            place = Path(work) / "venv"
            subprocess.run([options.uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
            install = [options.uv, "pip", "install", "--quiet", "--python", str(place / "bin/python")]
            subprocess.run([*install, f"skillupdate[{extra}] @ {wheel.as_uri()}"], check=True)
            listed = [options.uv, "pip", "list", "--quiet", "--python", str(place / "bin/python"), "--format", "freeze"]
            packages = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
            try_commands(place / "bin", extra, Path(work))
            print(f"skillupdate[{extra}]: {len(packages)} packages, {len(COMMANDS[extra])} commands work")


if __name__ == "__main__":
    main()
