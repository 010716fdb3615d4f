"""`make manifests`: the chart as plain YAML for those without Helm, charts/plain. A test holds it against the chart."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cluster.binaries import binary
from tests.cluster.console import run

CHARTS = Path(__file__).parent
PLAIN = CHARTS / "plain/base/skillupdate.yaml"
NAMESPACE = "skillupdate-system"
HEAD = f"""# Made from the chart by `make manifests`: change it by an overlay (../overlay), not here.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
OF_HELM = re.compile(r"^(?:# Source: .*| +helm\.sh/chart: .*| +app\.kubernetes\.io/managed-by: Helm)\n", re.MULTILINE)


def manifests() -> str:
    """Returns the chart's objects with its default values, without hooks and the words that are Helm's own.

    Nor has it the CRD: crds/ is a base of its own, which kustomize adds.
    """
    flags = ["--no-hooks", f"--namespace={NAMESPACE}", "--set=crds.enabled=false", "--kube-version=1.31.0"]
    rendered = run([binary("helm"), "template", "skillupdate", CHARTS / "skillupdate", *flags])
    return HEAD + OF_HELM.sub("", rendered)


def main() -> None:
    """Writes the file."""
    PLAIN.write_text(manifests())


if __name__ == "__main__":
    main()
