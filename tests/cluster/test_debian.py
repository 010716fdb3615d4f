"""A machine that cannot run a node says so in one sentence, with the other way."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.cluster import debian
from tests.cluster.console import ClusterError


def test_another_system_is_told_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ClusterError, match=r"needs Linux, and this is darwin.*--kubeconfig FILE --registry HOST"):
        debian.NODE.require()


def test_a_user_without_root_is_told_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"needs root.*this is user 1000.*--kubeconfig FILE --registry HOST"):
        debian.NODE.require()


def test_missing_packages_are_installed_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "FILES", {"here": sys.executable, "absent": "/no/such/program"})
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(debian, "run", lambda argv, **_: commands.append(argv))
    debian.Need("A test", ["here", "absent"], "").require()
    assert [command[1] for command in commands] == ["update", "install"]
    assert "absent" in commands[1]
    assert "here" not in commands[1]


def test_a_program_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "promtool"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.program("promtool", "prometheus") == own


def test_a_machine_without_apt_is_told_to_bring_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=r"prometheus is needed.*put its programs on the PATH"):
        debian.program("promtool", "prometheus")
