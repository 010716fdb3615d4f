"""`skill-trainer`: the entry point of the trainer image, and the same steps by hand.

Turns every ending into an answer: an Outcome in the termination message and an exit code. Imports torch only when a
step really runs, so that --help is quick.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NoReturn

from skill_contract.command_line import lacks
from skill_contract.model import ContractError
from skill_contract.outcome import ExitCode, Outcome, Result
from skill_contract.step import CONFIG_VARIABLE, Step, TrainConfig
from skill_store.termination import write_termination_message
from skill_trainer import launch
from skill_trainer.arguments import parser
from skill_trainer.by_hand import config_from
from skill_trainer.errors import ConfigInvalid
from skill_trainer.steps.stopping import Stop

UNKNOWN_FAULT = 1
"""Exit code of a fault that may pass."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of the command; a step also writes its Outcome to the termination log."""
    # Before torch is loaded: threads that wait must sleep. While another process holds a core, threads that spin at
    # each of thousands of barriers were measured to take five times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    level = logging.INFO if _is_first() else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    if options.command in {Step.CHECK, Step.TRAIN}:
        return _step(Step(options.command), options, arguments)
    return _command(_COMMANDS[options.command], options)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _step(step: Step, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    stop = Stop()
    stop.listen(at_once=step is Step.CHECK)
    count, machines = _crew(options) if step is Step.TRAIN and not launch.is_member() else (1, 1)
    if count * machines > 1:
        outcome, code = _together(count, machines, arguments, stop)
    else:
        launch.end_with_launcher()
        outcome, code = answer(step, lambda: _run(step, options, stop))
    if launch.speaks():
        write_termination_message(outcome.encode())
    if _is_first() and launch.LAUNCHED not in os.environ:
        print(f"{outcome.outcome}: {outcome.reason}: {outcome.message}", file=sys.stderr)
    return code


def _crew(options: argparse.Namespace) -> tuple[int, int]:
    """Returns how many processes train on each machine, and how many machines.

    A wrong configuration is said by the one process that there is.
    """
    try:
        training = _configured(options).training
    except ContractError:
        return 1, 1
    return options.processes or max(1, training.gpus_per_node), training.nodes


def _together(count: int, machines: int, arguments: Sequence[str], stop: Stop) -> tuple[Outcome, int]:
    """Returns the answer of `count` processes on this machine, each of which runs the same command."""
    command = [sys.executable, "-m", "skill_trainer", *arguments]
    try:
        among = launch.machines(machines)
        launch.find_first(among, stop)
    except (ConfigInvalid, TimeoutError) as error:
        return answer(Step.TRAIN, partial(_throw, error))
    ending = launch.together(count, command, stop, among)
    if ending.message:
        return Outcome.parse_json(ending.message), ending.code if ending.code >= 0 else UNKNOWN_FAULT
    if ending.code == -signal.SIGTERM:  # before it could listen
        result, reason, code = Result.PREEMPTED, "Preempted", int(ExitCode.PREEMPTED)
        message = "stopped while starting: start it again"
    else:
        result, reason, code = Result.FAILED, "UnknownFault", UNKNOWN_FAULT
        how = f"signal {-ending.code}" if ending.code < 0 else f"exit code {ending.code}"
        message = f"process {ending.rank + 1} of {count} ended by {how} without a word: out of memory, or see the log"
    return Outcome(step=Step.TRAIN, outcome=result, reason=reason, message=message), code


def _throw(error: Exception) -> NoReturn:
    raise error


def _command(run: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Returns the exit code of a command that is no step: it prints for people, faults as one sentence."""

    def finished() -> Outcome:
        run(options)
        return Outcome(step=Step.TRAIN, outcome=Result.SUCCEEDED, reason="Finished", message="")

    try:
        outcome, code = answer(Step.TRAIN, finished)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    if outcome.outcome is not Result.SUCCEEDED:
        print(f"{outcome.reason}: {outcome.message}", file=sys.stderr)
    return code


def answer(step: Step, run: Callable[[], Outcome]) -> tuple[Outcome, int]:
    """Returns what `run` returns with exit code 0, or what its fault means. Raises nothing but KeyboardInterrupt."""
    try:
        return _foreseen(step, run)
    except ModuleNotFoundError as missing:
        return _failed(step, "ConfigInvalid", lacks("skill-trainer", "trainer", missing)), ExitCode.USER_ERROR
    except Exception as error:  # noqa: BLE001 - the last word of a process
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}; the pod's log has the trace"
        return _failed(step, "UnknownFault", message), UNKNOWN_FAULT


def _foreseen(step: Step, run: Callable[[], Outcome]) -> tuple[Outcome, int]:
    """As `answer`, for the faults that have a name; raises the others."""
    from skill_store.errors import StoreError  # noqa: PLC0415
    from skill_trainer.data import DataError  # noqa: PLC0415
    from skill_trainer.errors import Preempted, TrainerError  # noqa: PLC0415

    try:
        return run(), ExitCode.FINISHED
    except Preempted as stop:
        outcome = Outcome(step=step, outcome=Result.PREEMPTED, reason=stop.reason, message=stop.message)
        return outcome, ExitCode.PREEMPTED
    except (TrainerError, DataError) as error:
        return _failed(step, error.reason, error.message), ExitCode.USER_ERROR
    except StoreError as error:
        code = UNKNOWN_FAULT if error.retriable else ExitCode.USER_ERROR
        return _failed(step, error.reason, error.message), code
    except ContractError as error:
        return _failed(step, "ConfigInvalid", str(error)), ExitCode.USER_ERROR


def _failed(step: Step, reason: str, message: str) -> Outcome:
    message = message.encode(errors="backslashreplace").decode()  # names of files may be in no encoding
    return Outcome(step=step, outcome=Result.FAILED, reason=reason, message=message)


def _compare(options: argparse.Namespace) -> None:
    from skill_trainer.compare.command import compare  # noqa: PLC0415
    from skill_trainer.model import silence  # noqa: PLC0415

    silence()
    print(compare(options))


def _report(options: argparse.Namespace) -> None:
    from skill_trainer.report.again import stored_page  # noqa: PLC0415

    options.out.write_text(stored_page(options.folder), encoding="utf-8")
    print(options.out)
    if options.open:
        webbrowser.open(options.out.resolve().as_uri())


def _estimate(options: argparse.Namespace) -> None:
    from rich.console import Console  # noqa: PLC0415

    from skill_trainer.estimate import estimate  # noqa: PLC0415
    from skill_trainer.model import silence  # noqa: PLC0415

    silence()
    made = estimate(_configured(options, needs_out=False))
    if options.json:
        print(made.dump_json())
    else:
        Console().print(made.table())


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "compare": _compare,
    "estimate": _estimate,
    "report": _report,
}


def _run(step: Step, options: argparse.Namespace, stop: Stop) -> Outcome:
    config = _configured(options)
    from skill_trainer.model import silence  # noqa: PLC0415
    from skill_trainer.steps.check import check  # noqa: PLC0415

    silence()
    if step is Step.CHECK:
        return check(config)
    return _train(config, stop, options)


def _configured(options: argparse.Namespace, *, needs_out: bool = True) -> TrainConfig:
    return _config(options.config) if options.model is None else config_from(options, needs_out=needs_out)


def _config(path: Path | None) -> TrainConfig:
    if path is not None:
        if not path.is_file():
            raise ContractError(f"--config {path}: there is no such file")
        return TrainConfig.parse_json(path.read_bytes())
    text = os.environ.get(CONFIG_VARIABLE)
    if not text:
        raise ContractError(f"no configuration: set ${CONFIG_VARIABLE}, or give --config or --model; see --help")
    return TrainConfig.parse_json(text)


def _train(config: TrainConfig, stop: Stop, options: argparse.Namespace) -> Outcome:
    from skill_store.repository import Repository  # noqa: PLC0415
    from skill_trainer.device import compute_device, prepare  # noqa: PLC0415
    from skill_trainer.parallel import Crew  # noqa: PLC0415
    from skill_trainer.progress import ProgressServer  # noqa: PLC0415
    from skill_trainer.progress_bar import ProgressBar  # noqa: PLC0415
    from skill_trainer.steps.check import check  # noqa: PLC0415
    from skill_trainer.steps.train import train_step  # noqa: PLC0415
    from skill_trainer.steps.workplace import Voice, Workplace, scratch_folder  # noqa: PLC0415

    device, by_hand = compute_device(), options.model is not None
    if not by_hand and config.training.gpus_per_node and device.type == "cpu":
        raise ConfigInvalid(
            f"training.gpusPerNode is {config.training.gpus_per_node}, but PyTorch sees no GPU here: look at the "
            "node's driver and at training.gpuResource, or write 0 to train on CPUs"
        )
    with ExitStack() as stack:
        crew = Crew.join(device)
        prepare()  # after accelerate, which sets a number of threads of its own
        stack.callback(crew.leave)
        if by_hand:
            if (checked := crew.first(lambda: check(config))).reason != "Checked":
                return checked
            if crew.rank == 0:  # in a cluster, a condition says it
                print(checked.message, file=sys.stderr)
        voices: list[Voice] = []
        if crew.rank == 0:
            voices.append(stack.enter_context(ProgressBar()))
            if not by_hand:
                voices.append(stack.enter_context(ProgressServer(options.progress_port)))
        repository = Repository(config.model.uri)
        folder = crew.on_each_machine(lambda: stack.enter_context(scratch_folder()))
        run = repository.run(config.update.uid)
        return train_step(Workplace(config, repository, run, folder, device, tuple(voices), stop, crew))
