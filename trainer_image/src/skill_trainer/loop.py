"""The training loop, on one page.

Everything that it calls is a function of the weights, the examples and the number of the step. So a run that is killed
and resumed between two steps gives the same weights, bit by bit on a CPU, as one that was not.

Several processes go through it side by side, each with its share of a batch, and decide alike: what they decide by is
the same number on all of them.

Shape suffixes: R rows of the loss (tokens of answers), D model width.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch

from skill_contract.spec import Method
from skill_trainer.curriculum import Curriculum
from skill_trainer.device import precision, wait_for
from skill_trainer.divergence import Sampled, Sums, chunked_loss, num_top, token_weights
from skill_trainer.errors import Diverged, Preempted
from skill_trainer.model import LanguageModel
from skill_trainer.objective import Item, Objective
from skill_trainer.parallel import Crew, Layout, Replicated, balanced, whole
from skill_trainer.schedule import learning_rate
from skill_trainer.step_report import StepReport, report_step
from skill_trainer.thoughts import thought_share

PART_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Tokens of one forward and backward pass: bounds the memory of activations, changes only roundings."""

ONE_PROCESS = Replicated()


def make_optimizer(student: LanguageModel) -> torch.optim.Optimizer:
    """Returns AdamW without weight decay; the loop sets its learning rate before each step."""
    return torch.optim.AdamW(student.trained_parameters().values(), lr=0.0, weight_decay=0.0, fused=True)


def train(
    student: LanguageModel, objective: Objective, optimizer: torch.optim.Optimizer, curriculum: Curriculum,
    method: Method, *, done: int, save_every: int, on_step: Callable[[StepReport], None], save: Callable[[int], None],
    stop: Callable[[], bool], enough: Callable[[], bool] = lambda: False, alive: Callable[[], None] = lambda: None,
    part_tokens: int | None = None, layout: Layout = ONE_PROCESS,
) -> None:  # fmt: skip
    """Trains `student` in place from step `done` to the end.

    Args:
        on_step: called after each step, before it is saved.
        save: called with the number of steps done, every `save_every` steps, at the end, and when stopped.
        stop: asked after each step: save and go, to be continued.
        enough: asked after each step: this was the last one.
        alive: called several times a step, which may take minutes: the heartbeat.
        part_tokens: instead of PART_TOKENS of the student's device.
        layout: how the weights lie over several processes.

    Raises:
        Diverged: when a loss or gradient is not finite; the weights are then those of the step before.
        Preempted: when `stop` says so, after saving.
    """
    total = curriculum.steps(method)
    for step in range(done, total):
        clock = _Clock(student.device)
        rate = learning_rate(step, total, method.optimizer)
        batch = curriculum.batch(step, method)

        with clock("generate"), layout.gathered():  # y ~ student(x), the current weights, no gradient
            items = layout.crew.spread(len(batch), partial(objective.items, batch, student=student, step=step))
        alive()

        tally = _Tally(sum(max(0, len(item.answer) - objective.skip) for item in items))
        for part in own_parts(items, objective, part_tokens or PART_TOKENS[student.device.type], layout.crew):
            sums = layout.forward(partial(_part_loss, part, student, objective, clock))
            tally.add(sums)
            with clock("backward"):
                sums.loss.backward()
            alive()
        tally = tally.of_all(layout.crew)

        with clock("optimizer"):
            layout.add_up(student.parameters())
            norm = _clip(student, method.optimizer.max_grad_norm)
            _require_finite(step, tally.loss, norm, rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if objective.teacher:
                objective.teacher.follow(student)

        answers, finished = [item.answer for item in items], [item.finished for item in items]
        report = report_step(
            step + 1, answers, finished, skip=objective.skip, loss=tally.loss, entropy=tally.entropy,
            top=sum(tally.tops), gradient_norm=norm, learning_rate=rate, seconds=clock.seconds,
            thought_share=thought_share(student.tokens, [item.example.student for item in items], answers),
            sampler_gap=tally.gap / tally.rows if tally.rows and items[0].logprobs else None,
        )  # fmt: skip
        on_step(report)
        ending = step + 1 == total or layout.crew.any(enough())
        stopping = layout.crew.any(stop())
        if stopping or ending or (step + 1) % save_every == 0:
            save(step + 1)
        if stopping:
            raise Preempted(f"stopped after step {step + 1} of {total}, which is saved: start it again to go on")
        if ending:
            return


def tokens_beside(length: int, shared: int) -> int:
    """Returns the tokens that a sequence costs a part, beside the `shared` ones that are computed once.

    Attention keeps a copy of the shared keys and values for each sequence: about a tenth of what a token keeps in all.
    """
    return length - shared + shared // 10


def parts(items: Sequence[Item], objective: Objective, part_tokens: int) -> Iterator[list[Item]]:
    """Yields the items that carry a loss, similar lengths together, at most `part_tokens` tokens at a time.

    What all of them begin with counts once, as it is computed.
    """
    carrying = sorted((item for item in items if len(item.answer) > objective.skip), key=objective.longest)
    shared = objective.shared(carrying) if carrying else 0
    part: list[Item] = []
    tokens = shared
    for item in carrying:
        own = tokens_beside(objective.longest(item), shared)
        if part and tokens + own > part_tokens:
            yield part
            part, tokens = [], shared
        part.append(item)
        tokens += own
    if part:
        yield part


def own_parts(
    items: Sequence[Item], objective: Objective, part_tokens: int, crew: Crew
) -> Iterator[tuple[list[Item], float]]:
    """Yields this process's parts of a batch, each with the total weight that its loss is a share of.

    As many in every process: where one has fewer parts than another, the rest are of no weight.
    """
    shares = [
        list(parts([items[row] for row in rows], objective, part_tokens))
        for rows in balanced([objective.longest(item) for item in items], crew.size)
    ]
    total = sum(item.example.weight for item in items)
    yield from ((part, total) for part in shares[crew.rank])
    any_item = next((part[:1] for share in shares for part in share), [])
    yield from [(any_item, math.inf)] * (max(map(len, shares)) - len(shares[crew.rank]))


def _part_loss(
    weighted_part: tuple[Sequence[Item], float], student: LanguageModel, objective: Objective, clock: _Clock
) -> Sums:
    """Returns the part's share of the batch's loss, differentiable, and of what else is measured with it."""
    part, total_weight = weighted_part
    with clock("teacher"):  # log p of the teacher after (x, c, y<t), no gradient, the same y
        target = objective.target(part)
    with clock("student"):  # log p of the student after (x, y<t), and the divergence of the two
        sequences = [(*item.example.student, *item.answer[:-1]) for item in part]
        first = [len(item.example.student) - 1 + objective.skip for item in part]
        hidden_RD = student.hidden_rows(sequences, first)
        weights = token_weights(
            [len(item.answer) for item in part], skip=objective.skip, total=total_weight,
            weights=[item.example.weight for item in part],
        )  # fmt: skip
        weight_R = torch.tensor(weights, device=hidden_RD.device)
        with precision(hidden_RD.device):
            return chunked_loss(
                hidden_RD, student.head, target, weight_R, objective.measure, temperature=objective.temperature,
                sampled=_sampled(part, objective.skip, hidden_RD.device),
            )  # fmt: skip


def _sampled(part: Sequence[Item], skip: int, device: torch.device) -> Sampled | None:
    """Returns the tokens that carry a loss as they were sampled; None where they were given."""
    if not part[0].logprobs:
        return None
    tokens, logprobs = (
        torch.tensor([each for row in rows for each in row[skip:]], device=device)
        for rows in ([item.answer for item in part], [item.logprobs for item in part])
    )
    return Sampled(tokens, logprobs)


@dataclass
class _Tally:
    """The figures of a batch, added up over its parts, so that they are the same however it is cut."""

    rows: int
    """That carry a loss, in the whole batch."""
    loss: float = 0.0
    entropy: float = 0.0
    gap: float = 0.0
    tops: list[float] = field(default_factory=list)
    """The largest shares of the loss, as many as `num_top` of the batch; ranked once over all of it."""

    def add(self, sums: Sums) -> None:
        most = num_top(self.rows)
        mine = sums.share_R.topk(min(most, len(sums.share_R))).values.tolist()
        self.loss, self.entropy = self.loss + sums.loss.item(), self.entropy + sums.entropy.item()
        self.gap += sums.gap.item()
        self.tops = sorted([*self.tops, *mine], reverse=True)[:most]

    def of_all(self, crew: Crew) -> _Tally:
        """Returns the tally over the processes of a crew: what a single one would have counted, but for roundings."""
        loss, entropy, gap = crew.totals(self.loss, self.entropy, self.gap)
        tops = sorted((top for each in crew.each(lambda: self.tops) for top in each), reverse=True)
        return _Tally(self.rows, loss, entropy, gap, tops[: num_top(self.rows)])


def _clip(student: LanguageModel, max_norm: float) -> float:
    """Scales all gradients together to a norm of at most `max_norm`; returns the norm before.

    Rows are added up in fp64: the sum of a hundred million squares in fp32 was 4e-4 off, differently for each split.
    """
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    if not gradients:  # no answer was long enough
        return 0.0
    rows = [torch.linalg.vector_norm(gradient, dim=-1) for gradient in gradients]
    norms = [torch.linalg.vector_norm(each, dtype=torch.float64) for each in rows]
    norm = whole(torch.linalg.vector_norm(torch.stack(norms)))
    if norm > max_norm:
        torch.nn.utils.clip_grads_with_norm_(student.parameters(), max_norm, norm)
    return norm.item()


def _require_finite(step: int, loss: float, norm: float, rate: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise Diverged(
            f"step {step + 1}: the loss is {loss}, the gradient's norm {norm}, at learning rate {rate:.3g}: lower "
            "method.optimizer.learningRate or raise warmupSteps; the last checkpoint is from before"
        )


class _Clock:
    """Adds up wall time by part."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        wait_for(self._device)
        self.seconds[part] += time.perf_counter() - start
