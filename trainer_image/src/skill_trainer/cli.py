"""`skill-trainer`: the entry point of the trainer image, and the same steps by hand.

Turns every ending into an answer: an Outcome in the termination message and an exit code. Imports torch only when a
step really runs, so that --help is quick.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from skill_contract.model import ContractError
from skill_contract.outcome import ExitCode, Outcome, Result
from skill_contract.step import CONFIG_VARIABLE, PROGRESS_PORT, Step, TrainConfig
from skill_trainer.by_hand import add_arguments, config_from
from skill_trainer.steps.stopping import Stop

UNKNOWN_FAULT = 1
"""Exit code of a fault that may pass."""

_EPILOG = f"""
In a pod, the configuration is the JSON document in ${CONFIG_VARIABLE}. By hand, give a file with --config, or the
options of the second group: a model repository is made in --out, and the same command resumes a run that was stopped.
Exit codes: 0 finished (published or rejected), 42 a mistake that a retry cannot mend, 75 stopped after saving, 1 other.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of the step, after writing its Outcome to the termination log."""
    # Before torch is loaded: threads that wait must sleep. While another process holds a core, threads that spin at
    # each of thousands of barriers were measured to take five times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    step, stop = Step(options.step), Stop()
    stop.listen(at_once=step is Step.CHECK)
    outcome, code = answer(step, lambda: _run(step, options, stop))
    from skill_store.termination import write_termination_message  # noqa: PLC0415

    write_termination_message(outcome.encode())
    print(f"{outcome.outcome}: {outcome.reason}: {outcome.message}", file=sys.stderr)
    return code


def answer(step: Step, run: Callable[[], Outcome]) -> tuple[Outcome, int]:
    """Returns what `run` returns with exit code 0, or what its fault means. Raises nothing but KeyboardInterrupt."""
    from skill_store.errors import StoreError  # noqa: PLC0415
    from skill_trainer.data import DataError  # noqa: PLC0415
    from skill_trainer.errors import Preempted, TrainerError  # noqa: PLC0415

    def failed(reason: str, message: str) -> Outcome:
        message = message.encode(errors="backslashreplace").decode()  # names of files may be in no encoding
        return Outcome(step=step, outcome=Result.FAILED, reason=reason, message=message)

    try:
        return run(), ExitCode.FINISHED
    except Preempted as stop:
        outcome = Outcome(step=step, outcome=Result.PREEMPTED, reason=stop.reason, message=stop.message)
        return outcome, ExitCode.PREEMPTED
    except (TrainerError, DataError) as error:
        return failed(error.reason, error.message), ExitCode.USER_ERROR
    except StoreError as error:
        return failed(error.reason, error.message), UNKNOWN_FAULT if error.retriable else ExitCode.USER_ERROR
    except ContractError as error:
        return failed("ConfigInvalid", str(error)), ExitCode.USER_ERROR
    except Exception as error:  # noqa: BLE001 - the last word of a process
        traceback.print_exc()
        return failed("UnknownFault", f"{type(error).__name__}: {error}; the pod's log has the trace"), UNKNOWN_FAULT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skill-trainer", description=__doc__.splitlines()[0], epilog=_EPILOG)
    steps = parser.add_subparsers(title="steps", dest="step", required=True, metavar="STEP")
    for step, text in ((Step.CHECK, "Find every mistake in seconds"), (Step.TRAIN, "Gate, train, score and publish")):
        subparser = steps.add_parser(step, help=text, description=f"{text}.", epilog=_EPILOG)
        subparser.add_argument(
            "--config", type=Path, metavar="FILE", help=f"TrainConfig as JSON (default: ${CONFIG_VARIABLE})"
        )
        subparser.add_argument(
            "--progress-port", type=int, default=PROGRESS_PORT, metavar="PORT",
            help="serves /progress and /metrics; 0: any (default: %(default)s)",
        )  # fmt: skip
        add_arguments(subparser.add_argument_group("by hand, instead of a configuration"))
    return parser


def _run(step: Step, options: argparse.Namespace, stop: Stop) -> Outcome:
    by_hand = options.model is not None
    config = config_from(options) if by_hand else _config(options.config)
    from skill_trainer.model import silence  # noqa: PLC0415
    from skill_trainer.steps.check import check  # noqa: PLC0415

    silence()
    if step is Step.CHECK:
        return check(config)
    if by_hand:
        checked = check(config)
        if checked.reason != "Checked":
            return checked
    return _train(config, stop, None if by_hand else options.progress_port)


def _config(path: Path | None) -> TrainConfig:
    if path is not None:
        if not path.is_file():
            raise ContractError(f"--config {path}: there is no such file")
        return TrainConfig.parse_json(path.read_bytes())
    text = os.environ.get(CONFIG_VARIABLE)
    if not text:
        raise ContractError(f"no configuration: set ${CONFIG_VARIABLE}, or give --config or --model; see --help")
    return TrainConfig.parse_json(text)


def _train(config: TrainConfig, stop: Stop, progress_port: int | None) -> Outcome:
    from skill_store.repository import Repository  # noqa: PLC0415
    from skill_trainer.device import compute_device, prepare  # noqa: PLC0415
    from skill_trainer.progress import ProgressServer  # noqa: PLC0415
    from skill_trainer.progress_bar import ProgressBar  # noqa: PLC0415
    from skill_trainer.steps.train import train_step  # noqa: PLC0415
    from skill_trainer.steps.workplace import Voice, Workplace, scratch_folder  # noqa: PLC0415

    device = compute_device()
    prepare(device)
    with ExitStack() as stack:
        voices: list[Voice] = [stack.enter_context(ProgressBar())]
        if progress_port is not None:
            voices.append(stack.enter_context(ProgressServer(progress_port)))
        repository = Repository(config.model.uri)
        folder = stack.enter_context(scratch_folder())
        run = repository.run(config.update.uid)
        return train_step(Workplace(config, repository, run, folder, device, tuple(voices), stop))
