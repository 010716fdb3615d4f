"""The world in which a SkillUpdate lives: a cluster, the operator from its chart, an object store, a served model.

Everything is done as a user would do it: kubectl, helm, port-forward, the S3 API, HTTP requests to the served model.
The demo and the end-to-end tests share it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import httpx
import yaml

from skill_store.repository import Repository
from tests.cluster import Cluster

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "docs/examples/demo"
SKILLS = ROOT / "tests/skills"
OPERATOR_NAMESPACE = "skillupdate-system"
BUCKETS = ("models", "skills")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class World:
    """One namespace of one cluster, with an object store and whatever the caller applies."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.images = cluster.load("operator", "store", "trainer", "engine", "seaweedfs")

    # -- kubectl ----------------------------------------------------------------------------------------------------

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *args, stdin=stdin)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", kind, name, "--output", "json"))

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        return json.loads(self.kubectl("get", kind, "--selector", selector, "--output", "json"))["items"]

    def apply(self, *documents: dict[str, Any]) -> None:
        # As JSON: PyYAML writes the string "1e-4" without quotes, which kubectl takes for a number.
        everything = {"apiVersion": "v1", "kind": "List", "items": documents}
        self.kubectl("apply", "--filename", "-", stdin=json.dumps(everything))

    def apply_file(self, path: Path) -> None:
        """Applies a file of the examples."""
        self.apply(*self.example(path))

    def example(self, path: Path) -> list[dict[str, Any]]:
        """Returns a file's documents; the images of the project are those that this cluster was given."""
        image = re.compile(r"image: skillupdate/(\w+)$", re.MULTILINE)
        text = image.sub(lambda match: f"image: {self.images[match[1]]}", path.read_text())
        return list(yaml.safe_load_all(text))

    def watch(self, kind: str, name: str, timeout_s: float) -> Iterator[dict[str, Any]]:
        """Yields the object now and after each change, until the caller has seen enough; watches anew where one ends.

        Raises:
            TimeoutError: after `timeout_s` seconds, with the last status seen and what kubectl said last.
        """
        deadline, last, said = time.monotonic() + timeout_s, dict[str, Any](), ""
        while (left := deadline - time.monotonic()) > 0:
            command = ["get", kind, name, "--watch", "--output", "jsonpath={@}{'\\n'}"]
            command += [f"--request-timeout={int(left) + 1}s"]  # 0 would be for ever
            with self._process(*command) as process:
                for said in process.stdout or ():
                    # Else it is an error in words, or a Status: a busy machine loses connections.
                    if said.startswith("{") and (seen := json.loads(said))["kind"] != "Status":
                        last = seen
                        yield last
            time.sleep(1)
        raise TimeoutError(f"{kind}/{name}: nothing final in {timeout_s:.0f} s, last {last.get('status')}; {said}")

    def wait_for_words(self, pod: str, words: str) -> None:
        """Waits until a pod that is starting or runs has said something.

        Raises:
            AssertionError: it ended without.
        """
        self.kubectl("wait", f"pod/{pod}", "--for=condition=Ready", "--timeout=300s")
        with self._process("logs", "--follow", pod) as process:
            if not any(words in line for line in process.stdout or ()):
                raise AssertionError(f"{pod} ended and never said {words!r}")

    @contextlib.contextmanager
    def _process(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        command = [*self.cluster.kubectl_command, "--namespace", self.namespace, *args]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()

    # -- parts ------------------------------------------------------------------------------------------------------

    def create_namespace(self) -> None:
        labels = {**RESTRICTED, "skillupdate-test": "true"}
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        self.cluster.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump(namespace))

    def install_operator(self, *more: str) -> None:
        """Installs (or upgrades to) the chart of this checkout, with the images that the cluster was given.

        Args:
            more: values, as `--set` takes them.
        """
        values = [
            f"--set=image.{name}.{key}={value}"
            for name in ("operator", "store", "trainer")
            for key, value in _reference(self.images[name]).items()
        ]
        self.cluster.helm(
            "upgrade",
            "--install",
            "skillupdate",
            str(ROOT / "charts/skillupdate"),
            "--namespace",
            OPERATOR_NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout",
            "180s",
            *values,
            *(f"--set={value}" for value in more),
        )

    def start_storage(self) -> None:
        self.apply_file(DEMO / "storage.yaml")
        self.kubectl("rollout", "status", "deployment/seaweedfs", "--timeout=120s")
        with self.storage():
            s3 = boto3.client("s3")
            deadline = time.monotonic() + 60
            for bucket in BUCKETS:
                while True:
                    try:
                        s3.create_bucket(Bucket=bucket)
                        break
                    except s3.exceptions.ClientError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(1)  # SeaweedFS elects its leader for some seconds after its port is open

    @contextlib.contextmanager
    def storage(self) -> Iterator[None]:
        """The object store is reachable by the AWS SDK's own environment variables while this context lasts."""
        with self.forward("service/seaweedfs", 8333) as url:
            environment = {
                "AWS_ENDPOINT_URL_S3": url,
                "AWS_ACCESS_KEY_ID": "demo",
                "AWS_SECRET_ACCESS_KEY": "demo-secret",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            with mock.patch.dict(os.environ, environment):
                yield

    @contextlib.contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """Yields the URL of a port of a pod or Service as long as the context lasts."""
        with self._process("port-forward", target, f":{port}") as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"127\.0\.0\.1:(\d+)", line)
            if not match:
                raise ConnectionError(f"kubectl port-forward {target}: {line.strip()}")
            yield f"http://127.0.0.1:{match[1]}"

    def upload(self, path: Path | bytes, key: str) -> str:
        """Puts a file into the bucket `skills` and returns its URI."""
        with self.storage():
            body = path if isinstance(path, bytes) else path.read_bytes()
            boto3.client("s3").put_object(Bucket="skills", Key=key, Body=body)
        return f"s3://skills/{key}"

    def repository(self, uri: str) -> Repository:
        """Only inside `storage()`."""
        return Repository(uri)

    # -- the served model -------------------------------------------------------------------------------------------

    def serving_pods(self, app: str = "support-llm") -> list[dict[str, Any]]:
        return [pod for pod in self.items("pods", f"app={app}") if "deletionTimestamp" not in pod["metadata"]]

    def ask(self, question: str, *, pod: str = "", max_tokens: int = 24) -> str:
        """Returns the served model's greedy answer, from the Service or from one pod."""
        target, port = (f"pod/{pod}", 8000) if pod else ("service/support-llm", 80)
        with self.forward(target, port) as url:
            response = httpx.post(
                f"{url}/v1/chat/completions",
                timeout=120,
                json={
                    "model": "/weights",
                    "messages": [{"role": "user", "content": question}],
                    "temperature": 0,
                    "max_tokens": max_tokens,
                    "stream": False,
                },
            )
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"]).strip()


def condition(update: dict[str, Any], kind: str) -> dict[str, Any]:
    """Returns one condition of an object, or an empty dict."""
    found = [entry for entry in update.get("status", {}).get("conditions", []) if entry["type"] == kind]
    return found[0] if found else {}


def is_settled(update: dict[str, Any]) -> bool:
    """Whether the update has ended, well or not, for the spec that it has now."""
    current = update.get("status", {}).get("observedGeneration") == update["metadata"]["generation"]
    return current and condition(update, "Succeeded").get("status") in {"True", "False"}


def fetched(pod: dict[str, Any]) -> dict[str, Any]:
    """Returns the fetch container's own words in a serving pod: its FetchMessage."""
    for status in pod["status"].get("initContainerStatuses", []):
        ended = status["state"].get("terminated") or status.get("lastState", {}).get("terminated")
        if status["name"] in {"weights", "storage-initializer"} and ended:
            return json.loads(ended["message"])
    return {}


def _reference(image: str) -> dict[str, str]:
    """Splits `host:port/path:tag` into the chart's `repository` and `tag`."""
    repository, tag = image.rsplit(":", 1)
    return {"repository": repository, "tag": tag}
