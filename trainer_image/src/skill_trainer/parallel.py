"""Several processes that train one model: who does what, and how the weights lie over them.

The only importer of torch.distributed and accelerate, whose larger parts (three seconds of work) are loaded where there
are several processes. Knows neither losses nor storage. All processes run the same
program; whatever only one of them may do (storage, progress) goes through `Crew.first`, whatever can be shared out
through `Crew.spread`. Both end alike on all of them: with the same value, or with the same error.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from skill_trainer.model import LanguageModel

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long processes wait for one that is at work, such as an upload. One that has died is noticed without it."""


class Crew:
    """The processes of a run, seen from one of them. Of a single one, every method is a plain call."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self._rank, self._size = rank, size
        self._leader, self._machines = rank - local_rank, max(1, size // local_size)
        self._apart = False

    @classmethod
    def join(cls, device: torch.device) -> Crew:
        """Returns the crew that the launcher has described in the environment, after all of it has met."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState  # noqa: PLC0415

        on_cpu = device.type == "cpu"
        state = PartialState(cpu=on_cpu, backend="gloo" if on_cpu else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
        here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return cls(state.process_index, state.num_processes, *here)

    @property
    def rank(self) -> int:
        """Number of this process; 0 while it works for itself, and for the first one."""
        return 0 if self._apart else self._rank

    @property
    def size(self) -> int:
        """Number of processes; 1 while this one works for itself."""
        return 1 if self._apart else self._size

    @property
    def machines(self) -> int:
        """Number of machines, which share no files; 1 while this process works for itself."""
        return 1 if self._apart else self._machines

    @property
    def machine(self) -> int:
        """Number of this process's machine among them."""
        return 0 if self._apart else self._rank * self._machines // self._size

    @property
    def leads(self) -> bool:
        """Whether this process is the first of its machine."""
        return self._apart or self._rank == self._leader

    def each(self, work: Callable[[], T]) -> list[T]:
        """Does `work` in every process, by itself; returns all results by rank, in every process.

        Raises:
            Exception: in every process, what any of them raised, the lowest rank's first.
        """
        if self.size == 1:
            return [work()]
        answers: list[Any] = [None] * self.size
        dist.all_gather_object(answers, self._try(work))
        return [_value(answer) for answer in answers]

    def first(self, work: Callable[[], T]) -> T:
        """Does `work` in the first process only; returns its result, or raises its error, in every process."""
        if self.size == 1:
            return work()
        answers: list[Any] = [self._try(work) if self.rank == 0 else None]
        dist.broadcast_object_list(answers)
        return _value(answers[0])

    def on_each_machine(self, work: Callable[[], T]) -> T:
        """Does `work`, such as bringing files there, in one process of each machine; returns the result of one's own.

        Raises as in `each`.
        """
        if self.size == 1:
            return work()
        leads, leader = self.leads, self._leader
        found: T | None = self.each(lambda: work() if leads else None)[leader]
        return found  # type: ignore[return-value]  # a leader has one

    def spread(self, count: int, work: Callable[[list[int]], Sequence[T]]) -> list[T]:
        """Shares `count` pieces of work out; returns all results in their order, in every process.

        Args:
            work: from some of the pieces' numbers, maybe none, to their results. Raises as in `each`.
        """
        shares = [list(range(rank, count, self.size)) for rank in range(self.size)]
        mine = shares[self.rank]
        found: dict[int, T] = {}
        for share, results in zip(shares, self.each(lambda: work(mine)), strict=True):
            found.update(zip(share, results, strict=True))
        return [found[row] for row in range(count)]

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - a fact, not a setting
        """Returns whether the flag is set in any process."""
        return any(self.each(lambda: flag))

    def totals(self, *values: float) -> list[float]:
        """Returns each value's sum over all processes."""
        return [sum(each) for each in zip(*self.each(lambda: values), strict=True)]

    def leave(self) -> None:
        """Ends the crew."""
        if self._size > 1:
            dist.destroy_process_group()

    def _try(self, work: Callable[[], T]) -> tuple[T | None, Exception | None]:
        """Returns result and error of `work`, during which this process takes part in nothing."""
        self._apart = True
        try:
            return work(), None
        except Exception as error:  # noqa: BLE001 - raised again, by all
            return None, _portable(error)
        finally:
            self._apart = False


def _value(answer: tuple[Any, Exception | None]) -> Any:
    value, error = answer
    if error:
        raise error
    return value


def _portable(error: Exception) -> Exception:
    """Returns the error, or its words where its class cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever a foreign class does when it is made anew
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


ALONE = Crew()


def balanced(costs: Sequence[float], size: int) -> list[list[int]]:
    """Returns which items each of `size` processes takes, in order: the dearest first, to whoever has least so far."""
    shares: list[list[int]] = [[] for _ in range(size)]
    totals = [0.0] * size
    for item in sorted(range(len(costs)), key=lambda item: -costs[item]):
        rank = totals.index(min(totals))
        shares[rank].append(item)
        totals[rank] += costs[item]
    return [sorted(share) for share in shares]


class Layout(Protocol):
    """How the weights in training lie over a crew."""

    crew: Crew

    def forward(self, work: Callable[[], T]) -> T:
        """Does a forward pass, of student and teacher. Every process must do as many, each with its backward pass."""

    def gathered(self) -> AbstractContextManager[object]:
        """Within it, the student can be asked anything, by some processes only; its weights must not be changed."""

    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """Called after the last backward pass: then gradients are summed over all processes."""

    def finish(self) -> None:
        """Called after training: then every process has the whole student."""


class Replicated:
    """Every process has all weights and sums their gradients itself: for few that are trained, or a single process."""

    def __init__(self, crew: Crew = ALONE) -> None:
        self.crew = crew

    def forward(self, work: Callable[[], T]) -> T:
        """Nothing to do but the work."""
        return work()

    def gathered(self) -> AbstractContextManager[object]:
        """They always are."""
        return nullcontext()

    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """In one message."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.crew.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def finish(self) -> None:
        """They always were."""


class Sharded:
    """Every process keeps its rows of each weight, gradient, moment and teacher's weight: PyTorch's FSDP2.

    A layer's whole weights exist only while it computes. Gradients are summed, not averaged: the loss has its weights
    already. Weights are gathered in fp32, and autocast does what it does in a single process.
    """

    def __init__(self, crew: Crew, student: LanguageModel, teacher: LanguageModel | None) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard  # noqa: PLC0415

        self.crew = crew
        self._student = student
        self._records = student.records
        student.records = False  # has not been seen to work between FSDP's hooks, which act on the GPU, too
        self._plain = _hollow(student.network)
        models = [student, teacher] if teacher else [student]
        mesh = dist.init_device_mesh(student.device.type, (crew.size,))
        for model in models:
            for block in model.blocks:
                fully_shard(block, mesh=mesh)
        self._root = fully_shard(_Root([model.network for model in models]), mesh=mesh)
        self._sharded = [module for module in self._root.modules() if isinstance(module, FSDPModule)]
        for module in self._sharded:
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        self._root(lambda: None)  # FSDP takes what runs first as the root
        self._root.reshard()

    def forward(self, work: Callable[[], T]) -> T:
        """Does it inside of the root's forward pass, where FSDP has its hooks."""
        return self._root(work)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Gathers the whole student once instead of once a token."""
        inside = set(self._student.network.modules())
        modules = [module for module in self._sharded if module in inside or module is self._root]
        for module in modules:
            module.unshard()
        blocks = [module for module in modules if module is not self._root]
        for block in blocks:
            block.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for block in blocks:
                block.set_reshard_after_forward(True, recurse=False)
            for module in modules:
                module.reshard()

    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """Backward passes have done it."""

    @torch.no_grad()
    def finish(self) -> None:
        """Puts a plain network with the trained weights in the place of the sharded one."""
        whole = dict(self._student.network.named_parameters())
        for name, parameter in self._plain.named_parameters():
            parameter.data = whole[name].full_tensor()
        self._student.network = self._plain
        self._student.records = self._records  # so that answers come by the same kernels before and after


def lay_out(crew: Crew, student: LanguageModel, teacher: LanguageModel | None) -> Layout:
    """Returns the layout of a model that is about to be trained, with its teacher's; an adapter's is replicated."""
    return Replicated(crew) if crew.size == 1 or student.adapter else Sharded(crew, student, teacher)


class _Root(nn.Module):
    """Both networks as one module whose forward pass is whatever is to be done with them."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, work: Callable[[], T]) -> T:
        return work()


def _hollow(network: nn.Module) -> Any:
    """Returns a copy whose weights have no elements, tied where the network's are."""
    empty = {id(weight): nn.Parameter(weight.new_empty(0), weight.requires_grad) for weight in network.parameters()}
    return copy.deepcopy(network, dict(empty))


def whole(tensor: Tensor) -> Tensor:
    """Returns the value of a tensor that may lie over several processes; called by all of them."""
    return tensor.full_tensor() if is_shared_out(tensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Returns whole tensors in the host's memory, none where `keep` is False; called by all processes."""
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if keep:
            found[name] = value.cpu()
    return found


def is_shared_out(tensor: Tensor) -> bool:
    """Returns whether every process has rows of its own of this tensor: a DTensor."""
    return hasattr(tensor, "full_tensor")


def own_rows(tensor: Tensor) -> tuple[Tensor, int]:
    """Returns what this process has of a tensor, and the number of the first of these rows."""
    if not is_shared_out(tensor):
        return tensor, 0
    rank, size = tensor.device_mesh.get_local_rank(), tensor.device_mesh.size()
    rows = tensor.shape[0]
    return tensor.to_local(), min(rows, rank * -(-rows // size))  # as torch.chunk, and so FSDP, cuts them


def like(tensor: Tensor, rows: Tensor) -> Tensor:
    """Returns this process's `rows` as a tensor that lies over the processes as `tensor` does."""
    if not is_shared_out(tensor):
        return rows
    from torch.distributed.tensor import DTensor  # noqa: PLC0415

    return DTensor.from_local(
        rows, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
