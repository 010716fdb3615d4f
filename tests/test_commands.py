"""What the documents tell people to type exists: commands, options, chart values, fields, metrics."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import kubectl_skill.arguments
import skill_operator.cli
import skill_store.cli
import skill_trainer.arguments
from tests.api.crd import CRD, SCHEMA, SPEC, walk

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "charts").rglob("*.md")])
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "kubectl skill": kubectl_skill.arguments.parser,
    "skill-operator": skill_operator.cli._parser,
    "skill-store": skill_store.cli._parser,
    "skill-trainer": skill_trainer.arguments.parser,
}
KINDS = {CRD["spec"]["names"]["plural"], CRD["spec"]["names"]["singular"], *CRD["spec"]["names"]["shortNames"]}
FIELDS, SPEC_FIELDS = ({path for path, _ in walk(schema)} for schema in (SCHEMA, SPEC))
VERBS = {"get", "describe", "patch", "wait", "delete", "edit", "annotate", "label", "explain"}
PROMPT = re.compile(r"^\$ ((?:.*\\\n)*.*)", re.MULTILINE)
INNER = re.compile(r"\$\(((?:[^()]|\([^()]*\))*)\)")

Words = list[str]


def told(page: Path) -> Iterator[Words]:
    """Yields every command of a page's shell blocks; of a console block what stands behind a prompt."""
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL):
        if language in {"sh", "shell", "bash"}:
            yield from commands(text)
        elif language == "console":
            for line in PROMPT.findall(text):
                yield from commands(line)


def commands(shell: str) -> Iterator[Words]:
    """Yields the simple commands of a piece of shell, those within `$(…)` among them."""
    shell = re.sub(r"(^|\s)#[^\n]*", "", shell.replace("\\\n", " "))
    for inner in INNER.findall(shell):
        yield from commands(inner)
    lexer = shlex.shlex(INNER.sub("VALUE", shell).replace("\n", " ; "), posix=True, punctuation_chars=";|&")
    lexer.whitespace_split, lexer.commenters = True, ""
    command: Words = []
    for word in [*lexer, ";"]:
        if not re.fullmatch(r"[;|&]+", word):
            command.append(word)
            continue
        while command and (command[0] in {"do", "then", "export"} or re.match(r"[A-Z_]+=", command[0])):
            del command[0]
        if command:
            yield command
        command = []


def problem(words: Words) -> str:
    """Returns what is wrong with a command of ours, or nothing."""
    program, *rest = [" ".join(words[:2]), *words[2:]] if words[:2] == ["kubectl", "skill"] else words
    if program in PARSERS:
        return _refusal(PARSERS[program](), rest)
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        return "" if {word for word in rest if "=" not in word} <= targets else "no such target"
    if program.startswith("python") and rest[:1] == ["-m"]:
        return "" if importlib.util.find_spec(rest[1]) else "no such module"
    if program.startswith("python"):
        return "" if (ROOT / rest[0]).exists() else "no such file"
    if program == "helm":
        return _unknown_values(rest)
    return _unknown_fields(rest) if program == "kubectl" else ""


def _refusal(parser: argparse.ArgumentParser, rest: Words) -> str:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            parser.parse_args(rest)
        except SystemExit as end:
            return said.getvalue() if end.code else ""
    return ""


def _unknown_values(rest: Words) -> str:
    """Only of our own chart; below an empty map everything goes."""
    if not any("charts/skillupdate" in word for word in rest):
        return ""
    given = [word.removeprefix("--set=") for word in rest if word.startswith("--set=")]
    given += [value for flag, value in itertools.pairwise(rest) if flag == "--set"]
    for path in (pair.partition("=")[0] for pair in given):
        place: Any = yaml.safe_load((ROOT / "charts/skillupdate/values.yaml").read_text())
        for name in path.split("."):
            if place == {}:
                break
            if not isinstance(place, dict) or name not in place:
                return f"the chart has no value {path}"
            place = place[name]
    return ""


def _unknown_fields(rest: Words) -> str:
    verbs = [place for place, word in enumerate(rest) if word in VERBS]
    kind = next((word for word in rest[verbs[0] + 1 :] if not word.startswith("-")), "") if verbs else ""
    name = re.split(r"[/.]", kind)[0]
    if not name.startswith(("sku", "skill")):
        return ""
    if name not in KINDS:
        return f"no kind {name}"
    patches = [value for flag, value in itertools.pairwise(rest) if flag in {"-p", "--patch"}]
    patches += [word.partition("=")[2] for word in rest if word.startswith(("-p=", "--patch="))]
    unknown = set().union(*(_paths(json.loads(patch)) for patch in patches)) - FIELDS
    return f"no field {', '.join(sorted(unknown))}" if unknown else ""


def _paths(document: Any, path: str = "") -> set[str]:
    """Returns the dotted paths of all keys, those below list items as `path[]`."""
    if isinstance(document, list):
        return set().union(*(_paths(item, f"{path}[]") for item in document))
    if not isinstance(document, dict):
        return set()
    here = {f"{path}.{name}" if path else name: value for name, value in document.items()}
    return set(here).union(*(_paths(value, name) for name, value in here.items()))


def _ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_commands_are_as_the_programs_have_them(page: Path):
    wrong = [f"{shlex.join(words)}: {said}" for words in told(page) if (said := problem(words))]
    assert not wrong, "\n".join(wrong)


WRONG = (
    "skill-store fetsch --to /weights",
    "skill-trainer train --data a.jsonl --heldout b.jsonl",
    "skill-operator plan a.yaml --life",
    """kubectl patch skup a --type merge -p '{"spec": {"aproved": true}}'""",
    "kubectl get skillupdats --watch",
    "kubectl skill explain --why",
    "helm install x charts/skillupdate --set image.oprator.repository=y",
    "make tset",
    "python -m tests.clusters down",
)


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_command_is_found(command: str):
    assert problem(shlex.split(command))


def test_shell_is_read_command_by_command():
    shell = "A=1 b --c $(d $(e)) && f | g  # h\nfor i in 1; do j \\\n k; done"
    found = [["e"], ["d", "VALUE"], ["b", "--c", "VALUE"], ["f"], ["g"], ["for", "i", "in", "1"], ["j", "k"], ["done"]]
    assert list(commands(shell)) == found


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_parts_of_a_spec_have_fields_that_exist(page: Path):
    """Whole updates are shown to a real API server by tests/api; this is for the pieces."""
    free = {path for path, schema in walk(SPEC) if not schema.get("properties") and schema.get("type") != "array"}
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        for document in yaml.safe_load_all(block):
            spec = document.get("spec") if isinstance(document, dict) and "kind" not in document else None
            if isinstance(spec, dict) and spec.keys() <= SPEC["properties"].keys() and "template" not in spec:
                unknown = {
                    path for path in _paths(spec) - SPEC_FIELDS if not path.startswith(tuple(f"{p}." for p in free))
                }
                assert not {path for path in unknown if "volumes[]." not in path}, block


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_metrics_that_are_named_are_exposed(page: Path):
    exposed = set(re.findall(r"`(skill_\w+)`", (ROOT / "docs/metrics.md").read_text()))
    named = set(re.findall(r"\bskill_(?:operator|trainer)_\w+\b", page.read_text()))
    suffixes = re.compile(r"_(bucket|sum|count)$")
    packages = {name for name in named if (ROOT / "operator/src" / name).exists()}
    unknown = {name for name in named - packages if suffixes.sub("", name) not in exposed}
    assert {name for name in unknown if not name.endswith("_")} == set()


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_tables_of_kubectl_have_its_columns(page: Path):
    columns = CRD["spec"]["versions"][0]["additionalPrinterColumns"]
    header = ["NAME", *(column["name"].upper() for column in columns if not column.get("priority"))]
    shown = re.findall(r"^NAME +PHASE.*$", page.read_text(), re.MULTILINE)
    assert [line.split() for line in shown] == [header] * len(shown)
