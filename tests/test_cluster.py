"""The test cluster keeps its promises: what the end-to-end tests take for granted is true of it."""

import json
import re
import secrets
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import Cluster, images, network, up
from tests.cluster.cluster import status

pytestmark = pytest.mark.e2e

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000, bind='0.0.0.0')"
SELF = """
import os, pathlib
status = dict(line.split(':', 1) for line in pathlib.Path('/proc/self/status').read_text().splitlines())
print('uid', os.getuid())
for name in ('Seccomp', 'CapEff', 'CapBnd', 'NoNewPrivs'):
    print(name, status[name].strip())
try:
    pathlib.Path('/file').write_text('')
except OSError as error:
    print('root', error.strerror)
pathlib.Path('/tmp/file').write_text('')
pathlib.Path('/dev/termination-log').write_text('last words')
"""
# A Service refuses until kube-proxy has heard of its pod, which is soon after the pod is Ready; nothing tells when.
FETCH = """
import sys, time, urllib.error, urllib.request
end = time.monotonic() + 20
while True:
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=5).status)
        break
    except urllib.error.URLError:
        if time.monotonic() > end:
            raise
        time.sleep(0.2)
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
    print('connected')
except OSError as error:
    print('refused', error)
"""


class Namespace:
    """A namespace that enforces the restricted standard, and short ways to run pods in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = f"cluster-test-{secrets.token_hex(4)}"
        self.image = images.load("store", cluster.registry)

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.name, *args, stdin=stdin)

    def start(self, name: str, *command: str, memory: str = "64Mi") -> None:
        container = {
            "name": "main",
            "image": self.image.reference,
            "command": ["python3", "-c", *command],
            "securityContext": RESTRICTED,
            "resources": {"limits": {"memory": memory}, "requests": {"cpu": "10m"}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        }
        metadata = {"name": name, "labels": {"app": name}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.kubectl("create", "--filename=-", stdin=json.dumps(pod))

    def container(self, name: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", "pod", name, "--output=json"))["status"]["containerStatuses"][0]

    def end(self, name: str) -> dict[str, Any]:
        """Wait for the end of a pod and return how its container ended."""
        self.kubectl(
            "wait", "pod", name, "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "--timeout=60s"
        )
        return self.container(name)["state"]["terminated"]


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    made = Namespace(cluster)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.name, "labels": labels}}
    cluster.kubectl("create", "--filename=-", stdin=json.dumps(document))
    yield made
    cluster.kubectl("delete", "namespace", made.name, "--wait=false")


@pytest.fixture(scope="module")
def web(namespace: Namespace) -> str:
    """A pod that serves HTTP, behind the Service `site`."""
    namespace.start("web", SERVE)
    namespace.kubectl("expose", "pod", "web", "--name=site", "--port=80", "--target-port=8000")
    namespace.kubectl("wait", "pod", "web", "--for=condition=Ready", "--timeout=60s")
    return "web"


def test_a_restricted_pod_runs_and_is_restricted(namespace: Namespace) -> None:
    namespace.start("restricted", SELF)
    ended = namespace.end("restricted")
    assert (ended["exitCode"], ended["message"]) == (0, "last words")
    said = dict(line.split(" ", 1) for line in namespace.kubectl("logs", "restricted").splitlines())
    nothing = "0000000000000000"
    filtered = "2"  # SECCOMP_MODE_FILTER, proc(5)
    assert said == {
        "uid": "65532",
        "Seccomp": filtered,
        "CapEff": nothing,
        "CapBnd": nothing,
        "NoNewPrivs": "1",
        "root": "Read-only file system",
    }


def test_exit_codes_reach_the_api(namespace: Namespace) -> None:
    namespace.start("refuses", "import sys; sys.exit(42)")
    ended = namespace.end("refuses")
    assert (ended["reason"], ended["exitCode"]) == ("Error", 42)


def test_a_pod_that_takes_too_much_memory_is_oomkilled(namespace: Namespace) -> None:
    namespace.start("greedy", "held = [bytearray(b'x' * 2**20) for _ in range(400)]", memory="48Mi")
    ended = namespace.end("greedy")
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_pod_reaches_a_service_by_its_name(namespace: Namespace, web: str) -> None:
    namespace.start("client", FETCH, f"http://site.{namespace.name}.svc.cluster.local/")
    assert namespace.end("client")["exitCode"] == 0
    assert namespace.kubectl("logs", "client").strip() == "200"


def test_a_pod_reaches_itself_through_its_service(namespace: Namespace, web: str) -> None:
    assert namespace.kubectl("exec", web, "--", "python3", "-c", FETCH, "http://site/").strip() == "200"


def test_exec_passes_input_output_and_failure(namespace: Namespace, web: str) -> None:
    assert namespace.kubectl("exec", "--stdin", web, "--", "cat", stdin="through") == "through"
    with pytest.raises(RuntimeError, match="exit code 3"):
        namespace.kubectl("exec", web, "--", "sh", "-c", "exit 3")


def test_port_forward_reaches_a_service(namespace: Namespace, web: str) -> None:
    command = [
        *namespace.cluster.kubectl_command,
        "--namespace",
        namespace.name,
        "port-forward",
        "service/site",
        ":80",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert found
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/", timeout=10) as reply:
                assert reply.status == 200
        finally:
            forward.terminate()


def test_the_pod_runs_exactly_the_image_that_was_pushed(namespace: Namespace, web: str) -> None:
    assert namespace.container(web)["imageID"].endswith(f"@{namespace.image.digest}")


def test_an_image_that_is_loaded_again_is_the_same(cluster: Cluster) -> None:
    assert images.load("pause", cluster.registry) == images.load("pause", cluster.registry)


def test_what_pods_send_does_not_leave_the_cluster(namespace: Namespace, web: str) -> None:
    with socket.create_server((network.HOST, 0)) as host:
        address = [network.HOST, str(host.getsockname()[1])]
        pod = namespace.kubectl("exec", web, "--", "python3", "-c", CONNECT, *address)
        node = subprocess.check_output([*network.ENTER, "python3", "-c", CONNECT, *address], text=True)
    assert (node.strip(), pod.strip()) == ("connected", "refused timed out")


def test_up_leaves_a_healthy_cluster_as_it_is(cluster: Cluster) -> None:
    before = status()
    assert up() == cluster
    assert status() == before
