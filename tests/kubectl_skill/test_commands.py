"""The command line itself: help, flags, clear errors without a cluster, completion, and the page that describes it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from kubectl_skill.arguments import all_commands, parser
from kubectl_skill.cli import main
from kubectl_skill.cluster import Access, connect
from kubectl_skill.completion import completions
from kubectl_skill.completion import main as complete
from kubectl_skill.errors import ExitCode

PAGE = (Path(__file__).parents[2] / "docs/kubectl-skill.md").read_text()
COMMANDS = {command.name: command for command in all_commands()}


class _Answering(BaseHTTPRequestHandler):
    """An HTTP server that is no Kubernetes, or one that is not well."""

    def do_GET(self) -> None:
        code = int(self.path.split("/")[-1]) if self.path.split("/")[-1].isdigit() else 404
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"404 page not found\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def kubeconfig(folder: Path, address: str) -> str:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "support"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert (ended.value.code, f"{COMMANDS[name].help}." in shown) == (0, True)
    joined = COMMANDS[name].examples.replace("\\\n", " ").strip()
    for example in joined.splitlines():
        words = re.split(r"\s[#|>&]", example)[0].split()
        assert words[:2] == ["kubectl", "skill"]
        assert parser().parse_args(words[2:]).command in COMMANDS


def test_page_describes_every_command():
    rows = re.findall(r"^\| `kubectl skill (\w+)[^`]*` \| (.*) \|$", PAGE, re.MULTILINE)
    assert dict(rows) == {name: command.help for name, command in COMMANDS.items()}
    told = set(re.findall(r"kubectl skill (\w+)", PAGE))
    assert told <= set(COMMANDS)


def test_page_has_every_exit_code():
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == set(ExitCode)


@pytest.mark.parametrize(
    "words",
    [
        ["-n", "team", "--context", "c", "status", "x"],
        ["status", "x", "-n", "team", "--context", "c"],
        ["-n", "team", "status", "--context", "c", "x"],
    ],
)
def test_flags_stand_before_or_after_the_command(words: list[str]):
    options = parser().parse_args(words)
    assert (options.namespace, options.context, options.name, options.all_namespaces) == ("team", "c", "x", False)


def test_without_a_command_it_says_what_there_is(capsys: pytest.CaptureFixture[str]):
    assert main([]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert all(command.help.split()[0] in shown for command in COMMANDS.values())


@pytest.mark.parametrize("words", [["dance"], ["status"], ["list", "-o", "yaml"]])
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == ExitCode.USAGE
    assert "usage: kubectl skill" in capsys.readouterr().err


def test_no_cluster_is_one_sentence(tmp_path: Path, unused_port: int, capsys: pytest.CaptureFixture[str]):
    for flags, words in (
        (["--kubeconfig", str(tmp_path / "none")], "there is no kubeconfig at"),
        (["--kubeconfig", kubeconfig(tmp_path, f"http://127.0.0.1:{unused_port}")], "does not answer"),
        (
            ["--kubeconfig", kubeconfig(tmp_path, f"http://127.0.0.1:{unused_port}"), "--context", "x"],
            "no cluster to talk",
        ),
    ):
        assert main([*flags, "status", "refund-tool"]) == ExitCode.UNAVAILABLE
        told = capsys.readouterr()
        assert (told.out, len(told.err.splitlines()), words in told.err) == ("", 1, True), told.err


def test_cluster_and_user_of_the_kubeconfig_can_be_chosen(tmp_path: Path, unused_port: int):
    path = Path(kubeconfig(tmp_path, f"http://127.0.0.1:{unused_port}"))
    document = yaml.safe_load(path.read_text())
    document["clusters"].append({"name": "other", "cluster": {"server": "http://127.0.0.1:1"}})
    document["users"].append({"name": "bot", "user": {"token": "of-the-bot"}})
    path.write_text(yaml.safe_dump(document))
    chosen = connect(Access(kubeconfig=str(path), cluster="other", user="bot"))
    assert chosen.namespace == "support"
    configuration = chosen._api.configuration
    assert (configuration.host, configuration.api_key) == ("http://127.0.0.1:1", {"BearerToken": "Bearer of-the-bot"})
    own = connect(Access(kubeconfig=str(path), server="http://127.0.0.1:2/", token="mine", impersonated="eve"))
    assert own._api.configuration.host == "http://127.0.0.1:2"
    assert own._api.configuration.api_key == {"BearerToken": "Bearer mine"}
    assert own._api.default_headers["Impersonate-User"] == "eve"


def test_kubeconfig_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "kubeconfig"
    for text in ("{", "- 1", "apiVersion: v1"):
        path.write_text(text)
        assert main(["--kubeconfig", str(path), "list"]) == ExitCode.UNAVAILABLE, text
        assert "no cluster to talk to" in capsys.readouterr().err


def test_cluster_without_the_crd(tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--kubeconfig", kubeconfig(tmp_path, server), "list"]) == ExitCode.NOT_FOUND
    assert (
        "does not know skillupdates (sdft.dev/v1alpha1): install skillupdate's chart first" in capsys.readouterr().err
    )


def test_cluster_that_is_not_well(tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--kubeconfig", kubeconfig(tmp_path, server), "status", "503"]) == ExitCode.UNAVAILABLE
    assert "try again" in capsys.readouterr().err


def test_missing_package_is_named():
    hidden = "import sys; sys.modules['rich'] = None; from kubectl_skill.cli import main; sys.exit(main(['list']))"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "pip install 'skillupdate[kubectl]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], ["status"]),
        (["status", "-"], None),
        (["list", "-o", ""], ["text", "json"]),
        (["new", "x", "--grader", "c"], ["contains", "choice"]),
        (["new", ""], []),
        (["--as", "x", "--server", "http://127.0.0.1:1", "list", "--us"], ["--user"]),
    ],
)
def test_completion(words: list[str], expected: list[str] | None):
    found = list(completions(words))
    assert found == expected if expected is not None else "--exit-code" in found


def test_completion_is_silent_where_there_is_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert complete(["--kubeconfig", str(tmp_path / "none"), "status", ""]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == (":4\n", "")


def test_completion_of_a_file_is_left_to_the_shell(capsys: pytest.CaptureFixture[str]):
    complete(["report", "x", "--out", ""])
    assert capsys.readouterr().out == ":0\n"
