"""A real S3 server for the tests: SeaweedFS, one for the session, a fresh bucket for each test.

Importable by other tests too: `SeaweedFS.start(folder)` is a context, `s3` a fixture. It listens on loopback only.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest

ACCESS_KEY, SECRET_KEY = "tests", "tests-secret"
START_SECONDS = 60
ENVIRONMENT = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # one volume for a new bucket, not seven
PORTS = (  # all of them, so that two sessions on one machine do not meet
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"),
    *("s3.port", "s3.port.grpc"),
)


@dataclass(frozen=True)
class SeaweedFS:
    """A running server."""

    endpoint: str
    log: Path

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path) -> Iterator[SeaweedFS]:
        """Yields a server that accepts writes; it and its data's processes are gone afterwards."""
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        server = cls(endpoint=f"http://127.0.0.1:{ports['s3.port']}", log=folder / "weed.log")
        with server.log.open("wb") as log:
            process = subprocess.Popen(
                _command(folder, ports),
                env={**os.environ, **ENVIRONMENT},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            server._wait(process)
            yield server
        finally:
            # On SIGTERM it takes more than 20 s for what nobody will read again.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the AWS SDK, and so our programs, find this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @functools.cached_property
    def client(self) -> Any:
        """An S3 client that needs no environment, for looking and for damaging behind the code's back."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )

    def create_bucket(self) -> str:
        """Makes a bucket that nobody else uses and returns its name."""
        name = f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        # The first object makes the bucket's volume; several first ones at once would wait for it a second.
        self.client.put_object(Bucket=name, Key="first", Body=b"x")
        self.client.delete_object(Bucket=name, Key="first")
        return name

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Returns once an object can be written: the port opens some seconds before there is a place to write to."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client = self.client
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="probe", Body=b"x")
                return
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"SeaweedFS does not serve: {error}\n{self.log.read_text()[-2000:]}") from error
                time.sleep(0.2)


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket; the process's environment leads to its server while the test runs."""

    server: SeaweedFS
    name: str

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    def contents(self) -> dict[str, bytes]:
        return {key: self.read(key) for key in self.keys("")}

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.server.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        body: bytes = self.server.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def write(self, key: str, data: bytes) -> None:
        self.server.client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.server.client.delete_object(Bucket=self.name, Key=key)


def _command(folder: Path, ports: dict[str, int]) -> list[str]:
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    return [
        str(Path(sys.executable).with_name("weed")),
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder / 'data'}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=200",  # each bucket is a collection with volumes of its own
        "-filer",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]


def free_ports(count: int) -> list[int]:
    """Returns ports of the loopback that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """The session's server."""
    with SeaweedFS.start(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A fresh bucket, and the environment that leads there."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return Bucket(seaweedfs, seaweedfs.create_bucket())
