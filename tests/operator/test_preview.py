"""`skill-operator plan` without a cluster: what it shows, and what it says of a file that it cannot use."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml

from skill_operator.cli import main
from tests.api.crd import EXAMPLES, update_files
from tests.operator import raw


def new_update(name: str = "refund-tool") -> raw.Raw:
    document = raw.update(name=name)
    del document["status"]
    document["metadata"] = {"name": name}
    return document


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "update.yaml"
    path.write_text(yaml.safe_dump_all([{"kind": "Secret"}, new_update()]))
    return path


def test_plan_shows_pass_by_pass_what_would_be_done(file: Path, capsys):
    assert main(["plan", str(file)]) == 0
    (shown,) = yaml.safe_load_all(capsys.readouterr().out)
    assert shown["update"] == "default/refund-tool"
    assert [step["phase"] for step in shown["passes"]] == ["Pending", "Checking", "Checking"]
    (action,) = shown["passes"][-1]["actions"]
    assert action["create"]["metadata"]["labels"]["sdft.dev/step"] == "check"
    assert shown["passes"][-1]["lookAgainSeconds"] > 0


def test_plan_as_json_with_a_namespace_of_a_list_from_the_standard_input(monkeypatch, capsys):
    listed = {"kind": "List", "items": [new_update("one"), new_update("two")]}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(listed)))
    assert main(["plan", "-", "--output=json", "--namespace=team"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["update"] for each in shown] == ["team/one", "team/two"]
    assert shown[0]["passes"][-1]["actions"][0]["create"]["metadata"]["namespace"] == "team"


def test_status_that_a_file_brings_along_counts_for_nothing(tmp_path: Path, capsys):
    document = {**new_update(), "status": {"phase": "Succeeded", "startTime": "2026-01-01T00:00:00Z"}}
    path = tmp_path / "stored.yaml"
    path.write_text(yaml.safe_dump(document))
    assert main(["plan", str(path)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["passes"][0]["phase"] == "Pending"


def test_several_nodes_need_no_cluster_that_has_jobset(tmp_path: Path, capsys):
    document = new_update()
    document["spec"]["training"] = {"nodes": 2}
    path = tmp_path / "gang.yaml"
    path.write_text(yaml.safe_dump(document))
    assert main(["plan", str(path)]) == 0
    assert "create" in yaml.safe_load(capsys.readouterr().out)["passes"][-1]["actions"][0]


@pytest.mark.parametrize("file", update_files(), ids=lambda file: file.relative_to(EXAMPLES).as_posix())
def test_every_example_would_begin_with_its_check(file: Path, capsys):
    assert main(["plan", str(file)]) == 0
    for shown in yaml.safe_load_all(capsys.readouterr().out):
        (action,) = shown["passes"][-1]["actions"]
        assert action["create"]["metadata"]["labels"]["sdft.dev/step"] == "check"


def test_file_that_is_no_text_is_refused(tmp_path: Path, capsys):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert main(["plan", str(path)]) == 64
    assert "is no YAML" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", ("is no YAML", "line 1", "correct it there")),
        ("kind: Secret", ("holds no SkillUpdate but Secret", "apiVersion: sdft.dev/v1alpha1, kind: SkillUpdate")),
        ("", ("holds no SkillUpdate but nothing",)),
        ("just words", ("holds no SkillUpdate",)),
        ("kind: SkillUpdate", ("without metadata.name", "give it one")),
        ("{kind: SkillUpdate, metadata: {name: a}, spec: all}", ("SkillUpdate a has no spec", "docs/api.md")),
        (
            "{kind: SkillUpdate, metadata: {name: a}, spec: {training: {nodes: two}}}",
            ("SkillUpdate a", "training.nodes", "'two'", "docs/api.md"),
        ),
    ],
    ids=str,
)
def test_file_that_cannot_be_planned_is_refused_with_the_place_and_the_way_out(tmp_path, text, words, capsys):
    path = tmp_path / "update.yaml"
    path.write_text(text)
    assert main(["plan", str(path)]) == 64
    said = capsys.readouterr().err
    assert str(path) in said
    for word in words:
        assert word in said


def test_file_that_is_not_there_is_refused(tmp_path, capsys):
    assert main(["plan", str(tmp_path / "absent.yaml")]) == 64
    assert "absent.yaml cannot be read: No such file or directory: name a file, or -" in capsys.readouterr().err


def test_cluster_that_is_not_there_is_told_with_the_way_out(file: Path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main(["plan", str(file), "--live"]) == 69
    said = capsys.readouterr().err
    assert "no cluster to talk to" in said
    assert "KUBECONFIG" in said
