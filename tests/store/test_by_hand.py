"""What people see of a repository: ls, log, diff and gc, as text and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from skill_contract.evaluation import Comparison, Evaluation, Verdict
from skill_contract.manifest import Manifest, VersionRef
from skill_contract.step import UpdateIdentity
from skill_store.catalogue import Catalogue
from skill_store.cli import main
from skill_store.errors import NotFound
from skill_store.repository import Repository
from skill_store.retention import Policy, remove

SECRET = re.compile(r"\d{6}-[0-9a-f]{12}")


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests below call `main` here, where its signal handler and its logging have no business."""
    monkeypatch.setattr("skill_store.cli.signal.signal", lambda *_: None)
    monkeypatch.setattr("skill_store.cli.logging.basicConfig", lambda **_: None)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"file://{tmp_path}/repository/m"


@pytest.fixture
def refs(uri: str, model: Path) -> dict[str, VersionRef]:
    """A base, three skills one on the other, a candidate of the head, and one that was never promoted."""
    repository = Repository(uri)
    found = {"base": repository.import_base(str(model))}
    for number, skill in enumerate(("tarn", "oake", "velmora"), start=1):
        found[skill] = learn(repository, model, skill, repository.head().ref, score=number / 10, rate=number)
        repository.move_head(found[skill], expected=repository.head())
    found["stray"] = learn(repository, model, "stray", found["tarn"], score=0.1, rate=1)
    found["candidate"] = learn(repository, model, "candidate", found["velmora"], score=0.9, rate=1)
    return found


def learn(repository: Repository, model: Path, skill: str, parent: VersionRef, score: float, rate: int) -> VersionRef:
    def compared(suite: str, after: float) -> Comparison:
        return Comparison(
            suite=suite, before=0.0, after=after, gain=after, low=0, high=1, n=100, normalized=1, verdict=Verdict.PASSED
        )

    before = repository.manifest(parent)
    evaluation = Evaluation(
        new_skill=compared(skill, score),
        retention=tuple(compared(old, 0.5 + score) for old in before.skills),
        worst_retention=0.987,
        verdict=Verdict.PASSED,
    )
    (model / "model.safetensors").write_bytes(skill.encode() * 1000)
    manifest = Manifest(
        files=(), sequence=before.sequence + 1, parent=parent, base=before.base, skill=skill,
        skills=(*before.skills, skill), evaluation=evaluation, created="2026-11-25T12:00:00+00:00",
        update=UpdateIdentity(namespace="team", name=f"learn-{skill}", uid=skill), method={"optimizer": {"rate": rate}},
    )  # fmt: skip
    return repository.publish(model, manifest)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def test_log_is_a_tree_with_the_head_marked(
    refs: dict[str, VersionRef], uri: str, capsys: pytest.CaptureFixture[str], model: Path
):
    lines = run(capsys, "log", uri)
    names = {ref.version: name for name, ref in refs.items()}
    shape = [SECRET.sub(lambda found: names[found[0]], line.split("  ")[0]) for line in lines]
    assert shape == ["○ candidate", "● velmora", "● oake", "│ ○ stray", "├─╯", "● tarn", "● base"]
    candidate, velmora, _, stray, _, _, base = lines
    assert velmora.split("  ")[1:] == [
        *("velmora", "0.00 -> 0.30", "retention 0.987", "7.1 kB", "by team/learn-velmora"),
        *("2026-11-25T12:00:00+00:00", "head"),
    ]
    assert candidate.endswith("could be promoted")
    assert stray.endswith("not in the head's lineage")
    assert f"base {model}" in base


def test_log_tells_of_what_was_removed_and_ls_does_not(
    refs: dict[str, VersionRef], uri: str, capsys: pytest.CaptureFixture[str]
):
    remove(uri, Policy(keep=2, grace_seconds=0))
    gone = next(line for line in run(capsys, "log", uri) if refs["tarn"].version in line)
    assert "0.00 -> 0.10" in gone
    assert "removed 2" in gone
    listed = "\n".join(run(capsys, "ls", uri))
    assert refs["tarn"].version not in listed
    assert all(refs[name].version in listed for name in ("base", "oake", "velmora", "candidate"))


def test_an_upload_that_broke_off_is_seen(refs: dict[str, VersionRef], uri: str, capsys: pytest.CaptureFixture[str]):
    folder = Path(uri.removeprefix("file://")) / "versions/000009-0123456789ab"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    assert run(capsys, "log", uri)[-1] == "× 000009-0123456789ab  an upload that was not completed  4 B"


def test_lists_for_programs(refs: dict[str, VersionRef], uri: str, capsys: pytest.CaptureFixture[str]):
    for command in ("ls", "log"):
        document = json.loads("\n".join(run(capsys, command, uri, "-o", "json")))
        assert document["head"]["version"] == refs["velmora"].version
        velmora = next(each for each in document["versions"] if each["skill"] == "velmora")
        assert velmora["parent"]["version"] == refs["oake"].version
        assert velmora["evaluation"]["newSkill"]["after"] == 0.3
        assert (velmora["state"], velmora["sizeBytes"]) == ("head", 7071)


def test_diff_says_what_the_head_has_over_the_version_before(
    refs: dict[str, VersionRef], uri: str, capsys: pytest.CaptureFixture[str]
):
    lines = run(capsys, "diff", uri)
    assert lines[:2] == [f"--- {refs['oake'].version}", f"+++ {refs['velmora'].version}"]
    assert "was trained from" in lines[2]
    text = "\n".join(lines)
    assert "skills added: velmora" in text
    assert re.search(r"oake +0\.200 -> 0\.800", text), "the new skill of then is retention now"
    assert re.search(r"velmora +- -> 0\.300", text)
    assert re.search(r"method\.optimizer\.rate +2 -> 3", text)
    assert re.search(r"model\.safetensors +4\.0 kB \w{12} -> 7\.0 kB \w{12}", text)
    assert "config.json" not in text


def test_diff_of_any_two(refs: dict[str, VersionRef], uri: str, capsys: pytest.CaptureFixture[str]):
    found = json.loads("\n".join(run(capsys, "diff", uri, refs["stray"].version, "head", "-o", "json")))
    assert found["lineage"] == f"both come from {refs['tarn'].version}"
    assert found["skills"] == {"added": ["oake", "velmora"], "missing": ["stray"]}
    backwards = "\n".join(run(capsys, "diff", uri, "head", "head~2"))
    assert "it is the newer one" in backwards
    assert "the same version" in "\n".join(run(capsys, "diff", uri, "head", "head"))


def test_a_version_is_found_by_what_people_write(refs: dict[str, VersionRef], uri: str):
    catalogue = Catalogue.read(uri)
    oake = refs["oake"]
    for text in ("head~1", oake.version, oake.version[:12], oake.digest, oake.digest[7:15]):
        assert catalogue.find(text).ref == oake, text
    assert catalogue.find("0").ref == refs["base"]
    with pytest.raises(NotFound, match="'2' fits several"):
        catalogue.find("2")
    with pytest.raises(NotFound, match="'000077' is none of: 000000-"):
        catalogue.find("000077")
    with pytest.raises(NotFound, match="the lineage has 4 versions"):
        catalogue.find("head~9")


def test_gc_says_first_and_does_it_when_told(refs: dict[str, VersionRef], uri: str, capsys: pytest.CaptureFixture[str]):
    asked = ("gc", uri, "--keep", "2", "--grace-hours", "0", "--in-use", "head~2")
    lines = run(capsys, *asked)
    assert lines[-1] == "1 things, 5.1 kB, would go; to remove them add --delete"
    assert any(line.startswith("would go") and refs["stray"].version in line for line in lines)
    assert any(refs["tarn"].version in line and "is in use" in line for line in lines)
    Repository(uri).verify(refs["stray"])
    document = json.loads("\n".join(run(capsys, *asked, "--delete", "-o", "json")))
    assert [each["name"] for each in document["removed"]] == [refs["stray"].version]
    assert run(capsys, *asked, "--delete")[-1] == "0 things, 0 B, removed"


def test_mistakes_come_with_the_way_out(refs: dict[str, VersionRef], uri: str, capsys: pytest.CaptureFixture[str]):
    for arguments, words in (
        (("gc", uri, "--keep", "1"), "keep 2 or more"),
        (("diff", uri, "head", "nonsense"), "write head, head~1"),
        (("log", f"{uri}/nowhere"), "skill-store import BASE"),
    ):
        assert main(arguments) == 42
        assert words in capsys.readouterr().err
