"""The command line of `skill-trainer`: commands, options, and an example for each. Runs nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from skill_contract.step import CONFIG_VARIABLE, PROGRESS_PORT, Step
from skill_trainer.by_hand import add_arguments

_DESCRIPTION = "Teaches a language model a skill by self-distillation, in a pod or by hand."
_EPILOG = """
Exit codes: 0 finished (published or rejected), 42 a mistake that a retry cannot mend, 75 stopped after saving, 1 other.
"""
_STEP_EPILOG = f"""
In a pod, the configuration is the JSON document in ${CONFIG_VARIABLE}. By hand, give a file with --config, or the
options of the second group: a model repository is made in --out, and the same command resumes a run that was stopped.

example:
  skill-trainer %s --model ./SmolLM2-135M-Instruct --data facts.jsonl --held-out questions.jsonl \\
      --grader contains --retention general=general.jsonl --out ./repository \\
      --set method.steps=24 --set method.optimizer.learningRate=8e-5
{_EPILOG}"""
_COMPARE_EPILOG = """
The plan is a YAML file:
  skills:                 # taught one beside the other, or with --sequence one after the other
  - {name: velmora, train: velmora/train.jsonl, heldOut: {uri: velmora/heldout.jsonl, grader: contains}}
  retention:              # what the model must not forget
  - {name: general-qa, uri: general-qa.jsonl, grader: contains}
  variants:   # built in: sdft-ema, sdft-frozen, sft, reverse-kl, jsd, paper-template, shuffled-demonstration
  - sdft-ema
  - sft
  - {name: faster-teacher, settings: [method.sdft.teacher.emaRate=0.05]}
  seeds: [17, 18, 19]
  settings: [method.steps=24, method.batchSize=8]

Every finished run is a line of OUT/journal.jsonl: the same command goes on where it was stopped, a longer plan makes
what is new, and two of them at the same time share the work. OUT/comparison.md, .json and .svg are written at the end.

example:
  skill-trainer compare plan.yaml --model ./SmolLM2-135M-Instruct --out ./comparison
"""
_ESTIMATE_EPILOG = """
Memory is computed, for the machine that training.gpusPerNode says. Time is measured on this machine, in half a minute,
with two shallow models of the same shape and random weights; no weights are loaded and nothing is written.

example:
  skill-trainer estimate --model ./SmolLM2-135M-Instruct --data facts.jsonl --held-out questions.jsonl \\
      --grader contains --retention general=general.jsonl --set method.steps=24
"""
_REPORT_EPILOG = """
examples:
  skill-trainer report ./repository/versions/000001-4f1c2a9b7d3e --open
  skill-trainer report ./repository/runs/velmora-1b2c3d4e5f60
"""


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="skill-trainer", description=_DESCRIPTION, epilog=_EPILOG)
    commands = whole.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, epilog: str) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(name, help=text, description=f"{text}.", epilog=epilog, formatter_class=raw)

    for step, text in ((Step.CHECK, "Find every mistake in seconds"), (Step.TRAIN, "Gate, train, score and publish")):
        subparser = add(step, text, _STEP_EPILOG % step)
        subparser.add_argument(
            "--config", type=Path, metavar="FILE", help=f"TrainConfig as JSON (default: ${CONFIG_VARIABLE})"
        )
        subparser.add_argument(
            "--progress-port", type=int, default=PROGRESS_PORT, metavar="PORT",
            help="serves /progress and /metrics; 0: any (default: %(default)s)",
        )  # fmt: skip
        if step is Step.TRAIN:
            subparser.add_argument(
                "--processes", type=int, metavar="N", help="that train together here (default: training.gpusPerNode)"
            )
        add_arguments(subparser.add_argument_group("by hand, instead of a configuration"))

    estimate = add("estimate", "Say what a run will take, memory and time, before anything starts", _ESTIMATE_EPILOG)
    estimate.add_argument(
        "--config", type=Path, metavar="FILE", help=f"TrainConfig as JSON (default: ${CONFIG_VARIABLE})"
    )
    estimate.add_argument("--json", action="store_true", help="for programs: bytes and seconds")
    add_arguments(estimate.add_argument_group("by hand, instead of a configuration (without --out, from --model)"))

    compare = add(
        "compare", "Train variants of a method beside each other and tabulate what they learn and keep", _COMPARE_EPILOG
    )
    compare.add_argument(
        "plan", type=Path, metavar="PLAN", help="YAML file: skills, retention, variants, seeds, settings"
    )
    compare.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="Hugging Face directory that every run begins from"
    )
    compare.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where finished runs, table and figure go"
    )
    compare.add_argument(
        "--sequence", action="store_true", help="teach the skills one after the other; writes the retention matrix"
    )
    compare.add_argument(
        "--only", action="append", default=[], metavar="VARIANT", help="of the plan's variants; repeatable"
    )

    report = add("report", "Write the page of a report again, from a version's or a run's report.json", _REPORT_EPILOG)
    report.add_argument("folder", type=Path, metavar="DIR", help="folder of a version or of a run, or a report.json")
    report.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default: %(default)s)"
    )
    report.add_argument("--open", action="store_true", help="show it in the browser")
    return whole
