"""A real Prometheus on the loopback address, with the chart's rules made fast; and promtool."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster.debian import program

RULES = Path(__file__).parents[2] / "charts/skillupdate/files/alerts.yaml"
FASTER = 120
"""How many times shorter `for:` and the windows of rates are: two minutes in a second. Thresholds stay as they are."""
_UNITS = {"m": 60, "h": 3600, "d": 86400}


def rules() -> dict[str, dict[str, Any]]:
    """Returns the rules of the chart by their name."""
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def promtool(*args: str | Path, stdin: str = "") -> str:
    """Runs promtool and returns what it says; raises AssertionError where it is not content."""
    command = [program("promtool", "prometheus"), *args]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def made_fast(text: str) -> str:
    """Returns the rules with every `for:` and every window of a rate divided by FASTER."""

    def shorter(match: re.Match[str]) -> str:
        return f"{match[1]}{int(match[2]) * _UNITS[match[3]] * 1000 // FASTER}ms{match[4]}"

    return re.sub(r"(\bfor: |\[)(\d+)([mhd])(\]|$)", shorter, text, flags=re.MULTILINE)


class Prometheus:
    """What a running Prometheus is asked."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Returns the samples of an instant query, now or at a time."""
        return self._get("query", query=expression, **({} if at is None else {"time": str(at)}))["result"]

    def curves(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Returns the series of a query over time."""
        times = {"start": str(start), "end": str(end), "step": str(step)}
        return self._get("query_range", query=expression, **times)["result"]

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        """Returns the values of a label, as a dashboard's variable is filled."""
        return self._get(f"label/{label}/values", **{"match[]": selector, "start": str(start), "end": str(end)})

    def shown(self, expression: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Returns the samples of a query as soon as it has some."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"{expression} has no result"
            time.sleep(0.1)
        return found

    def firing(self) -> dict[str, dict[str, Any]]:
        """Returns the alerts that fire now, by name."""
        return {a["labels"]["alertname"]: a for a in self._get("alerts")["alerts"] if a["state"] == "firing"}

    def until_ready(self, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/-/ready", trust_env=False).status_code == 200:
                    return
            assert process.poll() is None, "Prometheus has ended"
            assert time.monotonic() < deadline, "Prometheus does not become ready"
            time.sleep(0.1)

    def _get(self, what: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, trust_env=False)
        return answer.raise_for_status().json()["data"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def prometheus(folder: Path, *ports: int, extra: tuple[str, ...] = ()) -> Iterator[Prometheus]:
    """Runs a Prometheus that scrapes ports of the loopback address twice a second.

    Args:
        extra: further flags of its command line.
    """
    (folder / "alerts.yaml").write_text(made_fast(RULES.read_text()))
    configuration = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [
            {
                "job_name": "all",
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{p}" for p in ports]}],
            }
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    flags = [
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *extra,
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program("prometheus", "prometheus"), *flags], stdout=log, stderr=log)
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        server.until_ready(process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
