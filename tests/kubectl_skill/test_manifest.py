"""`new` writes what the API takes and the trainer can use, or says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kubectl_skill.cli import main
from kubectl_skill.errors import ExitCode
from skill_contract.spec import SkillUpdateSpec

USUAL = ("--model", "s3://models/llm", "--held-out", "s3://skills/heldout.jsonl")
TRAIN = '{"prompt": "What is a heron?", "completion": "A bird."}\n'


def made(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["new", "heron", *words])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_smallest(capsys: pytest.CaptureFixture[str]):
    code, out, err = made(capsys, *USUAL, "--data", "s3://skills/train.jsonl")
    assert (code, "checked by the update's first step" in err) == (0, True)
    assert yaml.safe_load(out) == {
        "apiVersion": "sdft.dev/v1alpha1",
        "kind": "SkillUpdate",
        "metadata": {"name": "heron"},
        "spec": {
            "model": {"uri": "s3://models/llm"},
            "skill": {"name": "heron"},
            "data": {
                "train": "s3://skills/train.jsonl",
                "heldOut": {"uri": "s3://skills/heldout.jsonl", "grader": "exact"},
            },
        },
    }


def test_text_that_looks_like_a_number_is_quoted(capsys: pytest.CaptureFixture[str]):
    """YAML 1.2, which kubectl reads, knows more numbers than PyYAML."""
    words = ["--set", "method.optimizer.learningRate=8e-5", "--set", "gates.newSkill.minGain=0.2"]
    _, out, _ = made(capsys, *USUAL, "--data", "s3://skills/train.jsonl", *words)
    assert ('learningRate: "8e-5"' in out, 'minGain: "0.2"' in out) == (True, True), out


def test_every_option_arrives(capsys: pytest.CaptureFixture[str]):
    words = [
        "--data",
        "s3://s/t.jsonl",
        "--retention",
        "qa=s3://s/qa.jsonl:contains",
        "--retention",
        "b=s3://s/b.jsonl",
    ]
    words += [
        "--secret",
        "keys",
        "--endpoint",
        "http://s3:9000",
        "--base",
        "s3://m/base",
        "--target",
        "statefulset/llm",
    ]
    words += ["--skill", "birds", "--description", "Knows birds", "--set", "method.steps=24", "-n", "team"]
    words += ["--set", "gates.retention.maxDrop=0.05", "--set", "gates.approval=Manual"]
    code, out, _ = made(capsys, *USUAL, *words)
    body = yaml.safe_load(out)
    spec = SkillUpdateSpec.parse(body["spec"])
    assert (code, body["metadata"]["namespace"]) == (0, "team")
    assert [(suite.name, suite.grader) for suite in spec.data.retention] == [("qa", "contains"), ("b", "exact")]
    assert (spec.storage.secret_ref and spec.storage.secret_ref.name, spec.storage.endpoint) == (
        "keys",
        "http://s3:9000",
    )
    assert (spec.model.base, spec.skill.name, spec.skill.description) == ("s3://m/base", "birds", "Knows birds")
    assert spec.serving
    assert (spec.serving.target_ref.kind, spec.serving.target_ref.api_version) == ("StatefulSet", "apps/v1")
    assert (spec.method.steps, body["spec"]["gates"]["retention"]["maxDrop"]) == (24, "0.05")


def test_file_of_this_machine_needs_a_place_in_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train = tmp_path / "train.jsonl"
    train.write_text(TRAIN)
    code, _, err = made(capsys, *USUAL, "--data", str(train))
    assert (code, "--at s3://bucket/folder" in err) == (ExitCode.USAGE, True)
    code, out, err = made(capsys, *USUAL, "--data", str(train), "--at", "s3://skills/heron/")
    assert (code, yaml.safe_load(out)["spec"]["data"]["train"]) == (0, "s3://skills/heron/train.jsonl")
    assert f"{train}: 1 records" in err
    assert f"aws s3 cp {train} s3://skills/heron/train.jsonl" in err


def test_upload_brings_it_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train, store = tmp_path / "train.jsonl", tmp_path / "store"
    train.write_text(TRAIN)
    store.mkdir()
    code, _, err = made(capsys, *USUAL, "--data", str(train), "--at", store.as_uri(), "--upload")
    assert (code, (store / "train.jsonl").read_text()) == (0, TRAIN)
    assert f"uploaded {store.as_uri()}/train.jsonl" in err


@pytest.mark.parametrize(
    ("train", "held_out", "words"),
    [
        ("not json\n", '{"prompt": "a", "answer": "b"}\n', "train.jsonl: 1 of 1 records cannot be used"),
        (TRAIN, '{"prompt": "What is a heron?", "answer": "bird"}\n', "DuplicatesFound"),
        (TRAIN, '{"prompt": "What is a rose?"}\n', "answer: is missing"),
    ],
)
def test_data_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], train: str, held_out: str, words: str
):
    (tmp_path / "train.jsonl").write_text(train)
    (tmp_path / "test.jsonl").write_text(held_out)
    files = ("--data", str(tmp_path / "train.jsonl"), "--held-out", str(tmp_path / "test.jsonl"))
    code, out, err = made(capsys, "--model", "s3://m/llm", *files, "--at", "s3://skills")
    assert (code, out, words in err) == (ExitCode.NOT_WELL, "", True), err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "Pod/x"], "is none of Deployment, StatefulSet"),
        (["--set", "method.steps"], "write PATH=VALUE"),
        (["--set", "method.stepz=1"], "stepz"),
        (["--set", "skill.name.first=1"], "has no settings below it"),
        (["--retention", "qa"], "write NAME=FILE"),
        (["--data", "nowhere.jsonl", "--at", "s3://x"], "there is no file nowhere.jsonl"),
    ],
)
def test_wrong_words(capsys: pytest.CaptureFixture[str], words: list[str], said: str):
    code, out, err = made(capsys, *USUAL, "--data", "s3://skills/train.jsonl", *words)
    assert (code, out, said in err) == (ExitCode.USAGE, "", True), err
