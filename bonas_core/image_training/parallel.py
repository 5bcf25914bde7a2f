"""One training in several processes: torch DDP over the GPUs of a slot, or over processes on CPUs.

All members of a team are children of the process that wants the training, which does nothing but look after them: if
one raises or dies, the others are killed, and if that process dies, they end by themselves. They meet through a file
and talk over the loopback interface.

A batch is split over the members by rows. Its loss is the mean over all rows, and batch norms take mean and variance
of all rows, so a team trains as one process does, up to the order in which sums are added.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from bonas_core.children import end_with_parent
from bonas_core.errors import TrainingProcessError

Tell = Callable[[Any], None]
"""Hands something to the process that looks after the team, and returns once it has been taken note of."""
Work = Callable[["Team", Any, Tell], Any]
"""What every member does, a function of a module; what member 0 returns is the result."""

_DEATH_S = 5.0  # a member that died took others with it; its exit code may come so much later than their complaints
_TIDY_S = 5.0


@dataclass(frozen=True)
class Team:
    """This process among those that train one network."""

    rank: int = 0
    size: int = 1

    def device(self, name: str) -> torch.device:
        """The device of this member: its own GPU, counted from the one named, or the CPU."""
        first = torch.device(name)
        if first.type != "cuda" or self.size == 1:
            return first
        device = torch.device("cuda", (first.index or 0) + self.rank)
        torch.cuda.set_device(device)
        return device

    def rows(self, size: int) -> slice:
        """Rows of this member in a batch of `size`.

        Members' shares differ by at most one, and none is empty of a batch that has as many rows as there are members.
        """
        return slice(size * self.rank // self.size, size * (self.rank + 1) // self.size)

    def joined(self, network: nn.Module, images: Tensor) -> nn.Module:
        """The network as it is to be called in training; its own parameters get the gradients of the whole team.

        Args:
            network: its batch norms are made to share their statistics.
            images: two or more on the device of the network, whatever they show.
        """
        if self.size == 1:
            return network
        device, leads_nowhere = images.device, _leads_nowhere(network, images)
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        else:
            for module in network.modules():
                if isinstance(module, _BatchNorm):
                    module.__class__ = _SyncedBatchNorm
        with warnings.catch_warnings():  # the other name of the argument is too new
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
            return DistributedDataParallel(network, broadcast_buffers=False, find_unused_parameters=leads_nowhere)

    def total(self, own: Tensor) -> Tensor:
        """The sum over all members that are there, in place."""
        if self.size > 1 and distributed.is_initialized():
            distributed.all_reduce(own)
        return own


def _leads_nowhere(network: nn.Module, images: Tensor) -> bool:
    """Whether no output depends on some of the parameters, as in cells with loose ends; the network is not changed."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    outputs = network.train()(images)
    total = sum(output.sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))
    gradients = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return None in gradients


class _Sum(torch.autograd.Function):
    """The sum over all members, on which the losses of all of them depend."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def _summed(own: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(own)  # type: ignore[no-untyped-call]
    return total


class _SyncedBatchNorm(_BatchNorm):
    """A batch norm over the rows of all members, on CPUs, where torch has none."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any input will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        # the sums are of what is left beyond the mean so far, which all members know: then one message serves for both
        known = values.new_zeros(values.shape[1]) if self.running_mean is None else self.running_mean.clone()
        beyond = values - known.reshape(shape)
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = _summed(torch.cat([beyond.sum(axes), beyond.square().sum(axes), count]))
        n = sums[-1]
        first, second = (sums[:-1] / n).chunk(2)
        mean, variance = first + known, (second - first.square()).clamp_min(0)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                new = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                self.running_mean += new * (mean - self.running_mean)
                self.running_var += new * (variance * n / (n - 1) - self.running_var)
        normed = (values - mean.reshape(shape)) * (variance + self.eps).rsqrt().reshape(shape)
        if self.affine:
            normed = normed * self.weight.reshape(shape) + self.bias.reshape(shape)
        return normed.to(x.dtype)


def run(size: int, device: str, work: Work, argument: Any, told: Callable[[Any], None]) -> Any:
    """Has a team of processes do some work.

    Args:
        size: processes.
        device: torch device; of GPUs, the first of as many.
        work: a function of a module.
        argument: handed to it; members get copies.
        told: called in this thread with whatever members tell; what it raises ends the team.

    Returns:
        what member 0 returned.

    Raises:
        TrainingProcessError: a member died.
        Exception: whatever a member raised.
    """
    context = get_context("spawn")
    # by itself: among a process's arguments, tensors would move to shared memory under those who use them here
    packed = pickle.dumps(argument)
    members: list[SpawnProcess] = []
    connections: list[Connection] = []
    with TemporaryDirectory(prefix="bonas-team-") as folder:
        try:
            for rank in range(size):
                ours, theirs = context.Pipe()
                connections.append(ours)
                arguments = (Team(rank, size), str(Path(folder) / "meeting"), device, theirs, work, packed)
                member = context.Process(target=_member, args=arguments, name=f"training-{rank}", daemon=True)
                member.start()
                members.append(member)
                theirs.close()
            result = _look_after(members, connections, told)
            for ours in connections:
                with suppress(OSError):
                    ours.send(None)  # now it may leave, and tidy up after itself
            for member in members:
                member.join(_TIDY_S)
            return result
        finally:
            for member in members:
                member.kill()
            for member in members:
                member.join()


def _look_after(members: list[SpawnProcess], connections: list[Connection], told: Callable[[Any], None]) -> Any:
    result, working = None, list(connections)
    while working:
        for ready in connection.wait(working):
            assert isinstance(ready, Connection)
            try:
                kind, value = ready.recv()
            except (EOFError, ConnectionError):
                raise _death(members) from None
            if kind == "error":
                # where one has died, the others complain that it has
                dead = connection.wait([member.sentinel for member in members], timeout=0.5)
                raise _death(members) if dead else value
            if kind == "told":
                told(value)
                ready.send(None)
                continue
            working.remove(ready)
            if ready is connections[0]:
                result = value
    return result


def _death(members: list[SpawnProcess]) -> Exception:
    connection.wait([member.sentinel for member in members], timeout=_DEATH_S)
    for rank, member in enumerate(members):
        member.join(0.1)
        code = member.exitcode
        if code:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return TrainingProcessError(
                f"process {rank} of {len(members)} of a training died ({how}); signal SIGKILL without a sender often "
                "means that memory ran out"
            )
    return TrainingProcessError(f"one of {len(members)} processes of a training went away")


def _member(team: Team, meeting: str, device: str, ours: Connection, work: Work, packed: bytes) -> None:
    """The life of a member."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that looks after it
    end_with_parent()
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)

    def tell(what: Any) -> None:
        ours.send(("told", what))
        ours.recv()

    try:
        backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
        team.device(device)
        store = FileStore(meeting, team.size)
        distributed.init_process_group(backend, store=store, rank=team.rank, world_size=team.size)
        result = work(team, pickle.loads(packed), tell)  # from the parent, never from a file
        ours.send(("result", result if team.rank == 0 else None))
        ours.recv()  # until the team is ended: a member that leaves would break the others' connections
        distributed.destroy_process_group()
    except Exception as error:
        ours.send(("error", _portable(error)))
        ours.recv()


def _portable(error: Exception) -> Exception:
    """The error, or one of the same text where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
