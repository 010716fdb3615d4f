"""The runs themselves: one model in memory, the real loop, weights put back between runs. No version is published.

Whether demonstrations help before training is not asked: a comparison wants to see what happens then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from skill_contract.step import TrainConfig
from skill_trainer.compare.journal import Finished, Journal
from skill_trainer.curriculum import total_steps
from skill_trainer.data import data_digest
from skill_trainer.errors import Diverged
from skill_trainer.evaluate import Suite, SuiteScores, score
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel
from skill_trainer.objective import make_objective
from skill_trainer.prompts import student_messages
from skill_trainer.step_report import StepReport
from skill_trainer.steps.check import require_supported
from skill_trainer.steps.examples import make_curriculum
from skill_trainer.steps.inputs import Inputs, read_inputs
from skill_trainer.steps.measure import answerer
from skill_trainer.steps.room import find_room

Chain = Sequence[TrainConfig]
"""Runs that are trained one after the other."""


class Bench:
    """Where the runs of a comparison are made: the model, its untrained weights, the data, the journal."""

    def __init__(
        self, folder: Path, out: Path, device: torch.device, on_step: Callable[[str, StepReport, int], None]
    ) -> None:
        self.journal = Journal(out)
        self._out = out
        self._folder = folder
        self._device = device
        self._on_step = on_step
        self._origin = _digest_of_files(folder)
        self._inputs: dict[str, Inputs] = {}

    def prepare(self, chains: Sequence[Chain]) -> None:
        """Reads all data and tokenises them: what is wrong with any run is found before the first one.

        Raises:
            ConfigInvalid, DataError, ModelInvalid, PromptTooLong: as `check` does.
        """
        for config in (config for chain in chains for config in chain):
            require_supported(config)
            inputs = self._inputs_of(config)
            make_curriculum(inputs, config, self._model_for(config).tokens)

    def steps(self, config: TrainConfig) -> int:
        """Returns the optimiser steps of one run."""
        inputs = self._inputs_of(config)
        return total_steps(config.method, len(inputs.train), inputs.share)

    def suites(self, chain: Chain) -> tuple[Suite, ...]:
        """Returns what is asked at every stage of a chain: its skills in their order, then what must be kept."""
        inputs = [self._inputs_of(config) for config in chain]
        return (*(each.held_out for each in inputs), *inputs[0].retention)

    def keys(self, chain: Chain) -> list[str]:
        """Returns the keys of the untrained model's scores and of those after each stage of a chain.

        A key is the hash of all that the scores depend on, so what is finished stays so when a plan grows.
        """
        suites, state = self.suites(chain), self._origin
        asked = [[suite.name, suite.encode().decode()] for suite in suites]
        given = chain[0].method.chat_template_arguments
        keys = [_hash(state, asked, chain[0].method.rollout.max_new_tokens, *([given] if given else []))]
        for config in chain:
            state = _hash(state, *_taught(self._inputs_of(config)), config.method.dump())
            keys.append(_hash(state, asked, config.method.rollout.max_new_tokens))
        return keys

    def run(self, chain: Chain) -> None:
        """Makes those runs of a chain that the journal has not yet; each is in the journal as soon as it is finished.

        A chain that was stopped goes on after its last finished stage, whose weights wait in the output folder.
        """
        keys = self.keys(chain)
        with self.journal.claim(keys[0], wait=True):
            if keys[0] not in self.journal.read():
                self._restore_untrained()
                self.journal.append(self._measured(keys[0], "base", chain, (), 0.0))
        done = self.journal.read()
        if is_finished(keys, done):
            return
        stage = self._resume(keys, done)
        for config, key in list(zip(chain, keys[1:], strict=True))[stage:]:
            finished = self._trained(key, config, chain)
            self._keep_weights(key, last=key == keys[-1] or bool(finished.fault))
            self.journal.append(finished)
            if finished.fault:
                break
        for key in keys[1:]:
            self._weights(key).unlink(missing_ok=True)

    @cached_property
    def _loaded(self) -> tuple[LanguageModel, dict[str, Tensor]]:
        """The one model, and its untrained weights. A comparison that is finished already never asks."""
        model = LanguageModel.load(self._folder, self._device)
        return model, {name: weight.detach().clone() for name, weight in model.named_parameters().items()}

    @property
    def _model(self) -> LanguageModel:
        return self._loaded[0]

    def _model_for(self, config: TrainConfig) -> LanguageModel:
        """Returns the one model, from now on with this run's arguments for its chat template."""
        self._model.tokens = replace(self._model.tokens, arguments=config.method.chat_template_arguments)
        return self._model

    def _restore_untrained(self) -> None:
        self._restore(self._loaded[1])

    def _inputs_of(self, config: TrainConfig) -> Inputs:
        key = config.data.dump_json()
        if key not in self._inputs:
            self._inputs[key] = read_inputs(config)
        return self._inputs[key]

    def _resume(self, keys: Sequence[str], done: dict[str, Finished]) -> int:
        """Brings the model to the last stage whose weights are there; returns how many stages are done then."""
        for stage in range(len(keys) - 1, 0, -1):
            if keys[stage] in done and self._weights(keys[stage]).exists():
                self._restore(load_file(self._weights(keys[stage])))
                return stage
        self._restore_untrained()
        return 0

    def _trained(self, key: str, config: TrainConfig, chain: Chain) -> Finished:
        model, method, label, start = self._model_for(config), config.method, config.update.uid, time.monotonic()
        curriculum = make_curriculum(self._inputs_of(config), config, model.tokens)
        losses, total = list[float](), curriculum.steps(method)
        # The one model trains whole, too.
        room = find_room(self._folder, method, curriculum.examples, self._device, adapted=False)
        model.answer_room = room.answers

        def on_step(report: StepReport) -> None:
            losses.append(report.loss)
            self._on_step(label, report, total)

        if method.adaptation.adapter:
            model.adapt(method.adaptation.adapter, method.seed)
        try:
            train(
                model, make_objective(method, model), make_optimizer(model), curriculum, method, done=0,
                save_every=total, on_step=on_step, save=_nothing, stop=_never,
                part_tokens=room.part_tokens,
            )  # fmt: skip
        except Diverged as error:
            return Finished(key=key, label=label, losses=tuple(losses), fault=error.message)
        finally:
            model.round_to_stored(self._folder)  # also merges an adapter
            model.begin_anew()
        return self._measured(key, label, chain, losses, time.monotonic() - start)

    def _measured(self, key: str, label: str, chain: Chain, losses: Sequence[float], training: float) -> Finished:
        start = time.monotonic()
        scores = self._scores(chain)
        seconds = {"training": training, "measuring": time.monotonic() - start}
        return Finished(key=key, label=label, scores=scores, losses=tuple(losses), seconds=seconds)

    def _scores(self, chain: Chain) -> dict[str, SuiteScores]:
        limit = chain[0].method.rollout.max_new_tokens
        answer = answerer(self._model_for(chain[0]), student_messages, max_new_tokens=limit, between=lambda: None)
        return score(self.suites(chain), answer)

    @torch.no_grad()
    def _restore(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._model.named_parameters().items():
            parameter.copy_(weights[name])
            parameter.grad = None

    def _keep_weights(self, key: str, *, last: bool) -> None:
        if last:
            return
        path = self._weights(key)
        path.parent.mkdir(exist_ok=True)
        weights = {name: weight.detach() for name, weight in self._model.named_parameters().items()}
        save_file(weights, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def _weights(self, key: str) -> Path:
        return self._out / "weights" / f"{key}.safetensors"


def is_finished(keys: Sequence[str], done: dict[str, Finished]) -> bool:
    """Returns whether there is nothing left to do for a chain: all stages are done, or one has failed for good."""
    for key in keys:
        if key not in done:
            return False
        if done[key].fault:
            return True
    return True


def _hash(*content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _taught(inputs: Inputs) -> tuple[object, ...]:
    again = (inputs.share, data_digest(inputs.rehearsed)) if inputs.rehearsed else ()
    return data_digest(inputs.train), *again


def _digest_of_files(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _nothing(step: int) -> None:
    """No checkpoint: a run takes minutes and is repeated where it was stopped."""


def _never() -> bool:
    return False
