"""`skill-trainer compare`: makes the runs of a plan that are not made yet, then writes the table and the figure."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skill_contract.model import ContractError
from skill_contract.step import TrainConfig
from skill_trainer.compare.figures import comparison_figure, matrix_figure
from skill_trainer.compare.journal import Finished
from skill_trainer.compare.plan import chains, read_plan
from skill_trainer.compare.summary import Matrix, Stage, matrix, point, rows
from skill_trainer.compare.work import Bench, is_finished
from skill_trainer.compare.writing import Comparison, comparison_table, matrix_table
from skill_trainer.device import compute_device, prepare
from skill_trainer.progress_bar import RunsBar


@dataclass(frozen=True)
class Planned:
    """A chain of runs with the keys under which the journal has its states."""

    chain: tuple[TrainConfig, ...]
    keys: tuple[str, ...]

    def stages(self, done: Mapping[str, Finished]) -> list[Stage]:
        """Returns the stages that are finished, the first ones of the chain."""
        found = []
        for config, before, after in zip(self.chain, self.keys, self.keys[1:], strict=False):
            if before not in done or after not in done:
                break
            found.append(Stage(config, done[before], done[after]))
        return found


def compare(options: argparse.Namespace) -> str:
    """Makes all runs that the journal in `--out` has not yet; writes what they say, and returns the table.

    Raises:
        ContractError, TrainerError, DataError: for every mistake in plan, data or model, before the first run.
    """
    plan, model, out = read_plan(options.plan).only(options.only), options.model.expanduser().resolve(), options.out
    if options.sequence:
        plan = plan.model_copy(update={"sequence": True})
    if not (model / "config.json").is_file():
        raise ContractError(f"--model {options.model}: is no Hugging Face model (there is no config.json)")
    device = compute_device()
    prepare()
    with RunsBar() as bar:
        bench = Bench(model, out, device, bar.step)
        planned = [Planned(chain, tuple(bench.keys(chain))) for chain in chains(plan, model)]
        _make(bench, planned, bar)
    return _written(planned, bench.journal.read(), out, sequence=plan.sequence)


def _make(bench: Bench, planned: Sequence[Planned], bar: RunsBar) -> None:
    left = [each for each in planned if not is_finished(each.keys, bench.journal.read())]
    bench.prepare([each.chain for each in left])
    for wait in (False, True):  # first what nobody is at, then what others have not brought to an end
        for each in left:
            with bench.journal.claim(each.keys[-1], wait=wait) as mine:
                if mine and not is_finished(each.keys, bench.journal.read()):
                    bar.runs(*_steps(bench, planned))
                    bench.run(each.chain)
                    done, total = _steps(bench, planned)
                    bar.runs(done, total)
                    bar.say(f"{done} of {total} steps done, the last of {each.chain[-1].update.uid}")


def _steps(bench: Bench, planned: Sequence[Planned]) -> tuple[int, int]:
    """Returns how many optimiser steps are done, by whomever, and how many there are in all runs together."""
    done = bench.journal.read()
    steps = [
        (bench.steps(config), key in done)
        for each in planned
        for config, key in zip(each.chain, each.keys[1:], strict=True)
    ]
    return sum(count for count, finished in steps if finished), sum(count for count, _ in steps)


def _written(planned: Sequence[Planned], done: Mapping[str, Finished], out: Path, *, sequence: bool) -> str:
    """Writes table, figure and JSON of what is finished; returns the table."""
    found = [each.stages(done) for each in planned]
    faults = tuple(
        f"{stage.config.update.uid}: {stage.after.fault}" for stages in found for stage in stages if stage.after.fault
    )
    if sequence:
        name, matrices = "sequence", _matrices(planned, found)
        document = Comparison(matrices=matrices, faults=faults, planned=len(planned))
        table, figure = matrix_table(document), matrix_figure(matrices) if matrices else ""
    else:
        stages = [stage for each in found for stage in each]
        points = tuple(point(stage) for stage in stages if not stage.after.fault)
        document = Comparison(points=points, rows=tuple(rows(stages)), faults=faults, planned=len(planned))
        name, table, figure = "comparison", comparison_table(document), comparison_figure(points, document.rows)
    for ending, text in (("json", f"{document.dump_json()}\n"), ("md", table), ("svg", figure)):
        (out / f"{name}.{ending}").write_text(text, encoding="utf-8")
    return table


def _matrices(planned: Sequence[Planned], found: Sequence[list[Stage]]) -> tuple[Matrix, ...]:
    """Returns a matrix for every variant of which a whole sequence is finished."""
    whole = [
        stages
        for each, stages in zip(planned, found, strict=True)
        if len(stages) == len(each.chain) and not stages[-1].after.fault
    ]
    variants = dict.fromkeys(stages[0].variant for stages in whole)
    return tuple(matrix(name, [stages for stages in whole if stages[0].variant == name]) for name in variants)
