"""A store that ignores conditions must be found out before it costs somebody a skill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from skill_store.errors import AccessDenied, BucketMissing, StoreUnavailable, StoreUnfit
from skill_store.repository import Repository
from tests.seaweedfs import Bucket, free_ports
from tests.store.conftest import Cli, Folder


def test_a_fit_store_passes_and_is_left_clean(place: Folder | Bucket):
    Repository(f"{place.uri}/m").check_conditional_writes()
    assert place.keys("m/") == []


@pytest.fixture
def careless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`rclone serve s3`, which accepts If-None-Match and If-Match and does not look at them."""
    (tmp_path / "data/bucket").mkdir(parents=True)
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("rclone")),
            *("serve", "s3", "--config", os.devnull, "--auth-key", "key,secret", "--addr", f"127.0.0.1:{port}"),
            str(tmp_path / "data"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        _wait_for(f"http://127.0.0.1:{port}")
        yield "s3://bucket/m"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.store
def test_a_store_that_ignores_conditions_is_refused(careless: str, cli: Cli, tmp_path: Path, model: Path):
    with pytest.raises(
        StoreUnfit, match=r"ignores If-None-Match: \*.*needs PutObject with If-None-Match: \* and with If-Match"
    ):
        Repository(careless).check_conditional_writes()
    assert not list((tmp_path / "data/bucket").rglob("alone"))
    code, _, err = cli("import", str(model), careless)
    assert (code, "StoreUnfit" in err) == (42, True)


@pytest.mark.store
def test_a_bucket_that_is_not_there_is_no_fault_of_the_store(careless: str):
    with pytest.raises(BucketMissing, match="the bucket does not exist; create it, or correct the address"):
        Repository(careless.replace("bucket", "bucket2")).check_conditional_writes()


@pytest.mark.store
def test_wrong_credentials_are_said_with_the_place(s3: Bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDenied, match=f"s3://{s3.name}/m.*SignatureDoesNotMatch"):
        Repository(f"{s3.uri}/m").check_conditional_writes()


@pytest.mark.store
def test_no_credentials_at_all_is_access_denied(s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(AccessDenied, match=r"no usable credentials.*secretRef"):
        Repository(f"{s3.uri}/m").head()


def test_a_store_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr("skill_store.retry.FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}"):
        Repository("s3://bucket/m").head()
