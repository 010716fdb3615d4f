"""Comparisons that really train: what they write, how they go on after a stop, and how two processes share them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest
import torch

from skill_contract.model import ContractError
from skill_trainer.compare.command import compare
from skill_trainer.compare.plan import chains, read_plan
from skill_trainer.compare.work import Bench
from skill_trainer.errors import PromptTooLong
from tests.trainer.compare.conftest import SETTINGS


def lines(options):
    return [json.loads(line) for line in (options.out / "journal.jsonl").read_bytes().splitlines()]


def labels(options):
    return sorted(line["label"] for line in lines(options))


def test_every_variant_learns_every_skill_with_every_seed(options):
    given = options()
    table = compare(given)
    names = [f"{v}/{skill}/{seed}" for v in ("sdft-ema", "sft") for skill in ("say", "sing") for seed in (1, 2)]
    assert labels(given) == sorted(["base", "base", *names])
    document = json.loads((given.out / "comparison.json").read_text())
    assert len(document["points"]) == document["planned"] == 8
    assert [(row["variant"], row["skill"]) for row in document["rows"]][:2] == [("sdft-ema", ""), ("sft", "")]
    assert "| sdft-ema |" in table
    assert "### sing" in table
    assert "finished" not in table
    figure = ET.fromstring((given.out / "comparison.svg").read_text())
    assert {"sdft-ema", "sft"} <= {text.text for text in figure.iter("{http://www.w3.org/2000/svg}text")}


def test_a_second_time_nothing_is_trained_and_a_longer_plan_trains_what_is_new(options):
    given = options(seeds=[1])
    compare(given)
    first = lines(given)
    table = compare(given)
    assert lines(given) == first
    compare(options(seeds=[1, 2]))
    assert [line["label"].rpartition("/")[2] for line in lines(given)[len(first) :]] == ["2"] * 4
    assert compare(options(seeds=[1])) == table


def test_a_run_begins_from_the_same_weights_wherever_it_stands_in_the_order(options):
    """Alone, or after another variant has trained the same model in the same process: the same losses and answers."""
    variants = [{"name": "lora", "settings": ["method.adaptation.type=LoRA"]}, "sdft-ema", "sft"]
    alone = options(out="alone", variants=variants, only=("sft",), seeds=[2])
    among = options(out="among", variants=variants, seeds=[1, 2])
    compare(alone)
    compare(among)
    wanted = [without_times(line) for line in lines(alone) if line["label"] == "sft/sing/2"]
    assert wanted == [without_times(line) for line in lines(among) if line["label"] == "sft/sing/2"]
    losses = {line["label"]: line["losses"] for line in lines(among)}
    assert losses["lora/sing/2"][0] == losses["sdft-ema/sing/2"][0]  # an adapter begins as nothing
    assert losses["lora/sing/2"][1] != losses["sdft-ema/sing/2"][1]


def test_each_variant_is_asked_with_its_own_arguments_of_the_chat_template(options, tiny_llama_dir, tmp_path):
    """They share one model: alone, or after a variant that was told something else, answers are the same."""
    model = shutil.copytree(tiny_llama_dir, tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text("{{ style }}" + template.read_text())
    brief = {"name": "brief", "settings": ["method.type=SFT", "method.chatTemplateArguments.style=brief"]}
    alone, among = (options(out=out, variants=["sft", brief], seeds=[1], only=only)
                    for out, only in (("alone", ("brief",)), ("among", ())))  # fmt: skip
    for given in (alone, among):
        given.model = model
        compare(given)
    assert labels(among).count("base") == 2 * labels(alone).count("base")
    made, wanted = ([without_times(line) for line in lines(each)] for each in (among, alone))
    assert all(line in made for line in wanted)
    plain = [line["losses"] for line in made if line["label"] == "sft/say/1"]
    assert plain != [line["losses"] for line in made if line["label"] == "brief/say/1"]


def without_times(line):
    return {name: value for name, value in line.items() if name != "seconds"}


def test_gates_are_judged_when_the_table_is_made(options):
    """Other thresholds are another table from the same runs."""
    given = options(seeds=[1])
    compare(given)
    made = lines(given)
    settings = [*SETTINGS, "gates.newSkill.minScore=1", "gates.onInconclusive=Accept"]
    compare(options(seeds=[1], settings=settings))
    assert lines(given) == made
    document = json.loads((given.out / "comparison.json").read_text())
    assert {point["verdict"] for point in document["points"]} == {"SkillNotLearned"}


def test_a_run_that_diverges_is_a_result(options):
    variants = [
        "sft",
        {"name": "wild", "settings": ["method.optimizer.learningRate=3e38", "method.optimizer.warmupSteps=0"]},
    ]
    given = options(variants=variants, seeds=[1])
    table = compare(given)
    assert [line["fault"][:6] for line in lines(given) if line["label"].startswith("wild")] == ["step 2"] * 2
    assert "2 diverged" in table
    made = lines(given)
    compare(given)
    assert lines(given) == made


def test_what_is_wrong_with_the_last_run_is_said_before_the_first(options):
    given = options(variants=["sft", {"name": "long", "settings": ["method.rollout.maxNewTokens=500"]}])
    with pytest.raises(PromptTooLong):
        compare(given)
    assert not (given.out / "journal.jsonl").exists()


def test_a_sequence_teaches_one_skill_on_top_of_the_other(options):
    given = options(sequence=True, seeds=[1, 2])
    table = compare(given)
    document = json.loads((given.out / "sequence.json").read_text())
    assert [matrix["variant"] for matrix in document["matrices"]] == ["sdft-ema", "sft"]
    for matrix in document["matrices"]:
        assert matrix["stages"] == ["say", "sing"]
        assert [(cell["suite"], cell["stage"]) for cell in matrix["cells"]] == [
            (suite, stage) for suite in ("say", "sing", "kept") for stage in range(3)
        ]
        assert all(len(verdicts) == 2 for verdicts in matrix["verdicts"])
    assert "| kept |" in table
    ET.fromstring((given.out / "sequence.svg").read_text())
    assert not list((given.out / "weights").iterdir())
    first, second = (
        next(line for line in lines(given) if line["label"] == f"sft/{skill}/1") for skill in ("say", "sing")
    )
    beside = options(out="beside", only=("sft",), seeds=[1])
    compare(beside)
    alone = {line["label"]: line for line in lines(beside)}
    assert first["losses"] == alone["sft/say/1"]["losses"]
    assert second["losses"] != alone["sft/sing/1"]["losses"]


def test_a_sequence_that_was_stopped_goes_on_after_its_last_stage(options, tiny_llama_dir):
    whole, stopped = (options(out=out, sequence=True, seeds=[1], only=("sdft-ema",)) for out in ("whole", "stopped"))
    compare(whole)
    plan = read_plan(stopped.plan).only(["sdft-ema"]).model_copy(update={"sequence": True, "seeds": (1,)})
    (chain,) = chains(plan, tiny_llama_dir)
    steps = []

    class Killed(BaseException):
        """As Ctrl-C."""

    def kill(label, report, total):
        steps.append((label, report.step))
        if label == "sdft-ema/sing/1":
            raise Killed

    bench = Bench(tiny_llama_dir, stopped.out, torch.device("cpu"), kill)
    with pytest.raises(Killed):
        bench.run(chain)
    assert labels(stopped) == ["base", "sdft-ema/say/1"]
    compare(stopped)
    assert list(map(without_times, lines(stopped))) == list(map(without_times, lines(whole)))


def test_two_processes_share_the_work(options):
    given = options()
    command = [sys.executable, "-m", "skill_trainer", "compare", given.plan, "--model", given.model, "--out", given.out]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}) as other:
        while not (given.out / "journal.jsonl").exists():
            assert other.poll() is None, "the other process ended without a line"
            time.sleep(0.05)
        compare(given)
    assert other.returncode == 0
    assert len(labels(given)) == len(set(labels(given))) + 1  # base, once for each skill
    assert "| sft |" in (given.out / "comparison.md").read_text()


def test_a_line_cut_off_by_a_crash_is_made_again(options):
    given = options(seeds=[1], only=("sft",))
    compare(given)
    path = given.out / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    compare(given)
    assert list(map(without_times, lines(given))) == [without_times(json.loads(line)) for line in whole.splitlines()]


def test_a_model_that_is_none_is_refused(options, tmp_path):
    given = options()
    given.model = tmp_path
    with pytest.raises(ContractError, match="is no Hugging Face model"):
        compare(given)
