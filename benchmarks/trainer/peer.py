"""TRL's SDFTTrainer on a setting: full vocabulary, EMA teacher, its own sampling and its own loop.

python -m benchmarks.trainer.peer --model DIR --setting JSON --out FILE
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

from benchmarks.trainer.process import arguments
from benchmarks.trainer.workload import EMA_RATE, LEARNING_RATE, SKIP, Clock, Run, Setting, Step, records
from skill_trainer.device import memory_bytes, wait_for

ALPHA = {"ForwardKL": 0.0, "JSD": 0.5, "ReverseKL": 1.0}
TURNS = "{prompt}<|im_end|>\n<|im_start|>assistant\n{privileged_context}<|im_end|>\n<|im_start|>user\n{prompt}"
"""The demonstration as a previous turn, in the words of ChatML: the same token ids as our default template."""


class Measured(SDFTTrainer):
    """The trainer with a clock around its own parts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clock, self.done, self.last = Clock(self.args.device), [], {}
        backward = self.accelerator.backward

        def timed_backward(*args: Any, **kwargs: Any) -> None:
            with self.clock("backward"):
                backward(*args, **kwargs)

        self.accelerator.backward = timed_backward

    def _generate_transformers(self, prompt_ids: list[list[int]]) -> Any:
        with self.clock("generate"):
            prompts, answers = super()._generate_transformers(prompt_ids)
        self.last = {"answers": answers}
        return prompts, answers

    def _forward_logits(self, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.clock("teacher" if model is self.teacher_model else "student"):
            return super()._forward_logits(model, *args, **kwargs)

    def _compute_self_distillation_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.clock("student"):
            return super()._compute_self_distillation_loss(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.last["loss"] = loss.item()
        return loss


class StepTimes(transformers.TrainerCallback):
    """Writes down a step when it has ended, teacher's update included."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Starts the clock: the batch is generated inside the step."""
        self.trainer.clock, self.start = Clock(self.trainer.args.device), time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stops it."""
        wait_for(self.trainer.args.device)
        seconds, parts, last = time.perf_counter() - self.start, self.trainer.clock.seconds, self.trainer.last
        parts["optimizer"] = seconds - sum(parts.values())
        self.trainer.done.append(Step(seconds, dict(parts), last["loss"], last["answers"]))


def run(model: Path, setting: Setting, device: torch.device) -> Run:
    """Returns what TRL's trainer took for the setting."""
    steps = setting.steps + 1
    rows = records(setting.batch * steps)
    data = datasets.Dataset.from_list(
        [{"prompt": list(row.messages), "privileged_context": row.demonstration} for row in rows]
    )
    is_gpu = device.type == "cuda"
    config = SDFTConfig(
        output_dir="unused", use_cpu=not is_gpu, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no", bf16=is_gpu, gradient_checkpointing=False,
        per_device_train_batch_size=setting.batch, num_generations=1, max_steps=steps, shuffle_dataset=False,
        max_completion_length=setting.new_tokens, max_prompt_length=None,
        distillation_mode="full_logits", distillation_alpha=ALPHA[setting.divergence], distillation_is_clip=None,
        num_loss_tokens_to_skip=SKIP, teacher_model_kind="ema", teacher_update_rate=EMA_RATE, teacher_sync_steps=1,
        teacher_prompt_template=TURNS, learning_rate=LEARNING_RATE, lr_scheduler_type="constant", weight_decay=0.0,
        optim="adamw_torch_fused", max_grad_norm=1.0, seed=17, model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    times = StepTimes()
    trainer = Measured(
        str(model), args=config, train_dataset=data, callbacks=[times],
        processing_class=transformers.AutoTokenizer.from_pretrained(model),
    )  # fmt: skip
    times.trainer = trainer
    before = memory_bytes(device)
    trainer.train()
    return Run(trainer.done, memory_bytes(device), before)


if __name__ == "__main__":
    options = arguments(__doc__)
    run(options.model, Setting(**options.setting), options.device).dump(options.out)
