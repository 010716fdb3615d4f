"""Other projects' controllers beside an API server: their own manifests, webhooks included, as processes.

What a cluster does for their pods is done here: the Service of the webhooks is an alias of the API server's own
machine, and their certificate is laid where the pod would find it.
"""

import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.binaries import binary
from tests.cluster.console import run
from tests.cluster.controlplane import LOOPBACK, free_port
from tests.cluster.pki import Authority
from tests.cluster.processes import Processes, until_served, wait_until

Manifest = dict[str, Any]
_CONFIGURATIONS: dict[str, Manifest] = {
    "jobset": {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "internalCertManagement": {"enable": False},  # its own would look for them in one folder of the machine
    },
    "lws": {
        "apiVersion": "config.lws.x-k8s.io/v1alpha1",
        "internalCertManagement": {"enable": False},
    },
    "kueue": {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "integrations": {"frameworks": ["batch/job", "jobset.x-k8s.io/jobset"]},
        "featureGates": {"VisibilityOnDemand": False},  # an aggregated API server of its own
    },
}
_GROUPS = ({"batch"}, {"jobset.x-k8s.io"}, {"kueue.x-k8s.io"}, {"leaderworkerset.x-k8s.io"}, {"serving.kserve.io"})
"""API groups whose webhooks are installed; those of other frameworks, and of every pod, have nothing to do here."""
_ITS_PODS = {
    "lws": {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]},
    "kserve": {"matchExpressions": [{"key": "serving.kserve.io/inferenceservice", "operator": "Exists"}]},
}
"""Whose webhooks see pods, and which: as its own kustomization narrows them."""


class Engine:
    """One with a configuration file: `install`, then `start` once kube-controller-manager runs, then `stop`.

    `folder` keeps its files; `enter` is put before its command, to run it in the API server's network namespace, where
    it is asked for its health at `host`.
    """

    def __init__(
        self, program: str, kubeconfig: Path, folder: Path, *, host: str = LOOPBACK, enter: Sequence[str] = ()
    ) -> None:
        self._program, self._kubeconfig, self._host, self._enter = program, kubeconfig, host, tuple(enter)
        self._processes = Processes(folder, outlive=False)
        self._folder = binary(program).parent / "config"
        self._namespace, self._service = f"{program}-system", f"{program}-webhook-service"
        self._secret = f"{program}-webhook-server-cert"
        self._webhook_port, self._health_port = free_port(), free_port()
        self._certificates = folder / program / "certificates"
        self._authority = Authority.create(folder / program / "pki")
        self._makes_certificates = program == "kueue"  # the others are given them

    def install(self) -> None:
        """Apply all that the engine needs; before kube-controller-manager starts, so that its garbage collector knows.

        The webhooks refuse everything until `start`.
        """
        document = {"apiVersion": "v1", "kind": "List", "items": list(self._manifests())}
        self._kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(document))
        until_served(self._kubectl, *(crd["metadata"]["name"] for crd in self._crds()))  # KServe ends where one is not

    def _manifests(self) -> Iterator[Manifest]:
        service = {"type": "ExternalName", "externalName": "localhost"}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace}}
        yield {"apiVersion": "v1", "kind": "Service", "metadata": self._named(self._service), "spec": service}
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": self._named(self._secret)}
        yield from self._crds()
        yield from self._webhooks()

    def start(self) -> None:
        """Start the controller and wait until it is ready.

        Raises:
            ClusterError: it ended or was not ready in time; the message has its log's tail.
        """
        self._certificates.mkdir(parents=True, exist_ok=True)
        if not self._makes_certificates:
            hosts = [f"{self._service}.{self._namespace}.svc"]
            pair = self._authority.issue(self._program, self._service, hosts=hosts)
            _replace(self._certificates / "tls.crt", pair.certificate.read_bytes())
            _replace(self._certificates / "tls.key", pair.key.read_bytes())
        program, processes = self._program, self._processes
        environment = {"KUBECONFIG": str(self._kubeconfig)} | self._environment()
        processes.start(program, [*self._enter, binary(program), *self._flags()], environment)
        if self._makes_certificates:
            processes.wait(program, self._take_certificates, f"the certificate of {program}", 60)
            wait_until(self._has_trust, f"the trust in {program}'s webhooks", 60, processes.log(program))
        processes.wait(program, self._is_ready, f"the start of {program}", 60)

    def stop(self) -> None:
        """End the controller."""
        self._processes.stop(self._program, seconds=3)

    def _flags(self) -> list[str]:
        configuration = self._certificates.with_name("configuration.json")
        configuration.write_text(json.dumps(self._configuration()))  # JSON is YAML
        return [f"--config={configuration}"]

    def _environment(self) -> dict[str, str]:
        return {}

    def _configuration(self) -> Manifest:
        return _CONFIGURATIONS[self._program] | {
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"{self._host}:{self._health_port}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": LOOPBACK, "port": self._webhook_port, "certDir": str(self._certificates)},
            "leaderElection": {"leaderElect": False},
        }

    def _crds(self) -> Iterator[Manifest]:
        folder = self._folder / "crd"
        patches = _load(folder / "kustomization.yaml")[0].get("patches", ())
        conversions = {}
        for patch in [_load(folder / each["path"])[0] for each in patches]:
            if "spec" in patch:
                conversion = patch["spec"]["conversion"]
                conversion["webhook"]["clientConfig"] = self._client(conversion["webhook"]["clientConfig"])
                conversions[patch["metadata"]["name"]] = {"conversion": conversion}
        for file in sorted((folder / "bases").iterdir()):
            (crd,) = _load(file)
            yield crd | {"spec": crd["spec"] | conversions.get(crd["metadata"]["name"], {})}

    def _webhooks(self) -> Iterator[Manifest]:
        for document in _load(self._folder / "webhook" / "manifests.yaml"):
            document["metadata"]["name"] = f"{self._program}-{document['metadata']['name']}"
            document["webhooks"] = list(self._installed(document["webhooks"]))
            yield document

    def _installed(self, webhooks: list[Manifest]) -> Iterator[Manifest]:
        for webhook in webhooks:
            here = webhook | {"clientConfig": self._client(webhook["clientConfig"])}
            if all(set(rule["apiGroups"]) in _GROUPS for rule in webhook["rules"]):
                yield here
            elif self._program in _ITS_PODS and webhook["rules"][0]["resources"] == ["pods"]:
                yield here | {"objectSelector": _ITS_PODS[self._program]}

    def _client(self, given: Manifest) -> Manifest:
        """Return how the API server reaches a webhook, from how the release says it."""
        service = self._named(self._service) | {"path": given["service"]["path"], "port": self._webhook_port}
        authority = base64.b64encode(self._authority.pair.certificate.read_bytes()).decode()
        return {"service": service} | ({} if self._makes_certificates else {"caBundle": authority})

    def _named(self, name: str) -> dict[str, str]:
        return {"name": name, "namespace": self._namespace}

    def _take_certificates(self) -> bool:
        """Lay the certificate that the controller has written into its Secret where a kubelet would."""
        secret = json.loads(self._get("secret", self._secret, "{.data}") or "{}")
        for name, content in secret.items():
            _replace(self._certificates / name, base64.b64decode(content))
        return "tls.crt" in secret

    def _has_trust(self) -> bool:
        """Tell whether the controller has told the API server whom to believe."""
        names = [f"{document['kind']}/{document['metadata']['name']}" for document in self._webhooks()]
        return all(self._get(*name.split("/"), "{.webhooks[*].clientConfig.caBundle}") for name in names)

    def _get(self, kind: str, name: str, path: str) -> str:
        return self._kubectl("get", kind, name, f"--namespace={self._namespace}", f"--output=jsonpath={path}")

    def _kubectl(self, *args: str, stdin: str | None = None) -> str:
        return run([binary("kubectl"), f"--kubeconfig={self._kubeconfig}", *args], stdin=stdin)

    def _is_ready(self) -> bool:
        """Tell whether it is healthy, and its webhooks listen: not every controller waits for them to say so."""
        if not _answers(f"http://{self._host}:{self._health_port}/readyz"):
            return False
        knock = f"import socket; socket.create_connection(({LOOPBACK!r}, {self._webhook_port}), 1).close()"
        knocking = [*self._enter, sys.executable, "-c", knock]
        return subprocess.run(knocking, stderr=subprocess.DEVNULL, check=False).returncode == 0


class KServe(Engine):
    """KServe in its Standard mode, which is told by flags and a ConfigMap, and has its manifests in other places."""

    def __init__(self, kubeconfig: Path, folder: Path, *, host: str = LOOPBACK, enter: Sequence[str] = ()) -> None:
        super().__init__("kserve", kubeconfig, folder, host=host, enter=enter)
        self._namespace, self._service = "kserve", "kserve-webhook-server-service"
        # Where its library looks, below the folder for temporary files, and where no flag leads.
        self._temporary = folder / "kserve"
        self._certificates = self._temporary / "k8s-webhook-server" / "serving-certs"

    def _manifests(self) -> Iterator[Manifest]:
        yield from super()._manifests()
        (settings,) = _load(self._folder / "configmap" / "inferenceservice.yaml")
        standard = {"deploy": {"defaultDeploymentMode": "Standard"}}
        without_gateways = {"ingress": json.loads(settings["data"]["ingress"]) | {"disableIngressCreation": True}}
        data = {name: json.dumps(value) for name, value in (standard | without_gateways).items()}
        yield settings | {"data": settings["data"] | data}

    def _flags(self) -> list[str]:
        health = f"--health-probe-addr={self._host}:{self._health_port}"
        return ["--metrics-addr=0", health, f"--webhook-port={self._webhook_port}"]

    def _environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self._temporary), "POD_NAMESPACE": self._namespace}

    def _crds(self) -> Iterator[Manifest]:
        folder = self._folder / "crd" / "full"
        for file in sorted([*folder.glob("*.io_*.yaml"), *folder.glob("clusterstoragecontainer/*.io_*.yaml")]):
            yield from _load(file)


class Rollouts:
    """Argo Rollouts, which has neither webhooks nor a configuration file."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._program, self._kubeconfig = "argo-rollouts", kubeconfig
        self._processes = Processes(folder, outlive=False)
        self._ports = {"metricsPort": free_port(), "healthzPort": free_port()}

    def install(self) -> None:
        """Apply its CRDs; before kube-controller-manager starts, so that its garbage collector knows."""
        crds = sorted((binary(self._program).parent / "config" / "crds").glob("*-crd.yaml"))
        files = [f"--filename={file}" for file in crds]
        run([binary("kubectl"), f"--kubeconfig={self._kubeconfig}", "apply", "--server-side", *files])

    def start(self) -> None:
        """Start the controller and wait until it is ready.

        Raises:
            ClusterError: it ended or was not ready in time; the message has its log's tail.
        """
        flags = ["--leader-elect=false", *(f"--{name}={port}" for name, port in self._ports.items())]
        self._processes.start(self._program, [binary(self._program), f"--kubeconfig={self._kubeconfig}", *flags])
        self._processes.wait(self._program, self._is_ready, f"the start of {self._program}", 60)

    def stop(self) -> None:
        """End the controller."""
        self._processes.stop(self._program, seconds=3)

    def _is_ready(self) -> bool:
        return _answers(f"http://{LOOPBACK}:{self._ports['healthzPort']}/healthz")


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _load(path: Path) -> list[Any]:
    return list(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)
