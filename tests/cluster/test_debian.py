"""A machine that cannot run a node says so in one sentence, with the other way."""

import os
import shutil
import sys

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
