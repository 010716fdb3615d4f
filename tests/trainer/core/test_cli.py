"""The command line in processes of its own: endings as exit codes and termination messages, signals, and by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from skill_contract.outcome import ExitCode, Outcome, Result
from skill_contract.step import Step
from skill_store.errors import HeadMoved, StoreUnavailable
from skill_trainer.cli import _COMMANDS, INTERRUPTED, answer, main
from skill_trainer.data import DataError
from skill_trainer.errors import Diverged, Preempted


class Trainer:
    """Starts `skill-trainer` and reads what it leaves."""

    def __init__(self, folder: Path) -> None:
        self.message = folder / "termination.json"
        self.environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "SKILL_TERMINATION_LOG": str(self.message),
            "SKILL_SCRATCH": str(folder),
        }  # fmt: skip

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "skill_trainer", *arguments],
            env={**self.environment, **variables},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, Outcome]:
        process = self.start(*arguments, **variables)
        _, self.errors = process.communicate(timeout=300)
        assert self.message.exists(), self.errors
        return process.returncode, Outcome.parse_json(self.message.read_bytes())


@pytest.fixture
def trainer(tmp_path):
    return Trainer(tmp_path)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on_to_the_same_weights(trainer, config, run_train, tmp_path, sent):
    """SIGTERM: saves and exits 75. SIGKILL: goes on from what was saved before."""
    settings = config(method={**config().method.dump(), "steps": 30})
    process = trainer.start("train", "--progress-port", "0", SKILL_CONFIG=settings.dump_json())
    for line in process.stderr:
        if "saved step 2 of 30" in line:
            process.send_signal(sent)
            break
    process.communicate(timeout=300)
    if sent == signal.SIGTERM:
        outcome = Outcome.parse_json(trainer.message.read_bytes())
        assert process.returncode == ExitCode.PREEMPTED
        assert (outcome.outcome, outcome.reason) == (Result.PREEMPTED, "Preempted")
    else:
        assert process.returncode == -signal.SIGKILL
    resumed = run_train(settings)
    whole = run_train(config(method=settings.method.dump(), update={**settings.update.dump(), "uid": "whole"}))
    first, second = (
        (tmp_path / f"repository/versions/{outcome.version}/model.safetensors").read_bytes()
        for outcome in (resumed, whole)
    )
    assert first == second


def test_sigterm_is_heard_while_the_libraries_are_still_loading(trainer, config):
    """As process 1 of a container, python would ignore it until it listens, and then train on until it is killed."""
    process = trainer.start(
        "train", "--progress-port", "0", SKILL_CONFIG=config().dump_json(), PYTHONPROFILEIMPORTTIME="1"
    )
    for line in process.stderr:
        if line.rstrip().endswith("torch._C"):
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=300)
    assert process.returncode == ExitCode.PREEMPTED
    assert Outcome.parse_json(trainer.message.read_bytes()).outcome == Result.PREEMPTED


def test_by_hand_a_model_and_two_files_are_enough(trainer, config, tiny_llama_dir, tmp_path):
    data = config().data
    code, outcome = trainer.run(
        "train", "--model", str(tiny_llama_dir), "--data", data.train, "--held-out", data.held_out.uri,
        "--grader", "contains", "--out", str(tmp_path / "out"), "--skill", "say", "--set", "method.steps=1",
        "--set", "method.rollout.maxNewTokens=4", "--set", "gates.inContextGain.mode=Skip",
        "--set", "gates.onInconclusive=Accept",
    )  # fmt: skip
    assert (code, outcome.reason) == (0, "Published")
    assert (tmp_path / "out/versions" / outcome.version / "config.json").exists()
    assert "Noted: 1 step (method.steps, 0 of them warm-up) mostly teach nothing" in trainer.errors


def test_unknown_keys_of_the_configuration_are_the_users_mistake(trainer, config):
    document = config().dump() | {"metod": {}}
    code, outcome = trainer.run("check", SKILL_CONFIG=json.dumps(document))
    assert (code, outcome.outcome, outcome.reason) == (ExitCode.USER_ERROR, Result.FAILED, "ConfigInvalid")
    assert "metod" in outcome.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs")
def test_gpus_that_are_not_there_are_missed_before_anything_is_computed(trainer, config):
    document = config().dump()
    document["training"]["gpusPerNode"] = 1
    code, outcome = trainer.run("train", SKILL_CONFIG=json.dumps(document))
    assert (code, outcome.reason) == (ExitCode.USER_ERROR, "ConfigInvalid")
    assert "training.gpusPerNode is 1, but PyTorch sees no GPU" in outcome.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "set $SKILL_CONFIG"),
        (["train", "--config", "/nowhere.json"], "/nowhere.json: there is no such file"),
        (["train", "--model", "m", "--out", "o"], "--model needs --data, --held-out beside it"),
    ],
)
def test_missing_configuration_names_the_way_out(trainer, arguments, message):
    code, outcome = trainer.run(*arguments, SKILL_CONFIG="")
    assert code == ExitCode.USER_ERROR
    assert message in outcome.message


def test_every_command_has_help_with_an_example(capsys):
    for command in ("check", "train", "estimate", "compare", "report"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"\n  skill-trainer {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "nowhere.yaml", "--model", "m", "--out", "o"], "nowhere.yaml: there is no such plan"),
        (["estimate", "--model", "m"], "--model needs --data, --held-out beside it"),
        (["report", "nowhere"], "nowhere: has no report.json: give the folder of a version"),
    ],
)
def test_mistakes_of_commands_are_one_sentence(arguments, message, capsys):
    assert main(arguments) == ExitCode.USER_ERROR
    out, errors = capsys.readouterr()
    assert not out
    assert errors.startswith("ConfigInvalid: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_estimate_by_hand_for_programs(config, tiny_llama_dir, capsys):
    data = config().data
    arguments = ["--model", str(tiny_llama_dir), "--data", data.train, "--held-out", data.held_out.uri]
    settings = ["--set", "method.steps=3", "--set", "method.rollout.maxNewTokens=4", "--set", "method.batchSize=2"]
    assert main(["estimate", *arguments, "--grader", "contains", *settings, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["steps"] == 3
    assert 0 < made["peak"] <= sum(made["memory"].values())
    assert made["trainingSeconds"] > 0


def test_a_stored_report_becomes_a_page_again(config, run_train, tmp_path, capsys):
    outcome = run_train(config())
    page = tmp_path / "again.html"
    for folder in (f"versions/{outcome.version}", "runs/uid-1", "runs/uid-1/report.json"):
        page.unlink(missing_ok=True)
        assert main(["report", str(tmp_path / "repository" / folder), "--out", str(page)]) == 0
        assert capsys.readouterr().out == f"{page}\n"
        assert "<html" in page.read_text()
    (tmp_path / "report.json").write_text("{}")
    assert main(["report", str(tmp_path)]) == ExitCode.USER_ERROR
    assert "is no report that this program can read" in capsys.readouterr().err


def test_ctrl_c_is_an_ending_too(capsys, monkeypatch, tmp_path):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(_COMMANDS, "report", interrupted)
    assert main(["report", str(tmp_path)]) == INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err


def test_help_needs_no_torch():
    code = (
        "import sys, skill_trainer.cli as c\ntry: c.main(['train', '--help'])\nfinally: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--held-out" in result.stdout
    assert result.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("error", "code", "result", "reason"),
    [
        (Preempted("saved"), 75, Result.PREEMPTED, "Preempted"),
        (Diverged("nan"), 42, Result.FAILED, "Diverged"),
        (DataError("DataInvalid", "line 3"), 42, Result.FAILED, "DataInvalid"),
        (HeadMoved("moved"), 42, Result.FAILED, "HeadMoved"),
        (StoreUnavailable("away"), 1, Result.FAILED, "StoreUnavailable"),
        (RuntimeError("what?"), 1, Result.FAILED, "UnknownFault"),
    ],
)
def test_every_fault_has_its_ending(error, code, result, reason, capsys):
    def run():
        raise error

    outcome, got = answer(Step.TRAIN, run)
    assert (got, outcome.outcome, outcome.reason) == (code, result, reason)
    assert str(error) in outcome.message
    assert ("Traceback" in capsys.readouterr().err) is (reason == "UnknownFault")


def test_a_message_that_no_encoding_knows_is_written_all_the_same():
    def run():
        raise OSError("no such file: caf\udce9.jsonl")

    outcome, _ = answer(Step.CHECK, run)
    assert b"caf\\\\udce9.jsonl" in outcome.encode()
