"""One program on several devices: the first rank runs it, the others compute along whenever its network is called.

    first rank                                     every other
    generate(...) -> events, files                 follow()
        transformer(x, sigma, text)   -- told ->       transformer(x, sigma, text)
    leave()                           -- told ->   returns

Plans, noise, history, codec and files are the first rank's alone, and nothing of them has to agree. What the network is
given is sent before each call, some 30 MB for the 13 B model: less than a thousandth of a step between GPUs.
"""

from __future__ import annotations

import gc
import io
import pickle
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from longtake.backbones.parallel.joining import output_for_data
from longtake.backbones.seams import Seams
from longtake.errors import LongtakeError

__all__ = ["Crew"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_V = TypeVar("_V")
_PATIENCE = timedelta(days=7)  # between two calls the first rank may decode, write, or wait for its user


class Crew:
    """The ranks of a group. Each makes one, at the same point of the program, and does the same with it.

    Example:
        sharing = share_sequence(backbone.transformer, group)
        crew = Crew(group, device)
        crew.call_together(backbone.transformer, backbone.seams)
        if crew.leads:
            try:
                ...  # as on one device
            finally:
                crew.leave()
        else:
            crew.follow()
    """

    def __init__(self, group: ProcessGroup, device: torch.device) -> None:
        self.group, self._device = group, device
        self.leads = group.rank() == 0  # True for the first rank
        ranks = distributed.get_process_group_ranks(group)
        self._first = ranks[0]
        with output_for_data():
            told = distributed.new_group(ranks, timeout=_PATIENCE, backend="gloo")
        assert isinstance(told, ProcessGroup)  # this rank is in it
        self._told = told
        self._tasks: list[Callable[..., Any]] = []

    def everywhere(self, task: Callable[_P, _R]) -> Callable[_P, _R]:
        """On the first rank, a function that does this in all ranks, and gives what it gives in the first.

        Every rank says so for the same tasks in the same order. Arguments are sent: tensors on the device as they are,
        all else pickled.
        """
        number = len(self._tasks)
        self._tasks.append(task)

        @wraps(task)
        def tell_and_do(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            self._tell((number, args, kwargs))
            return task(*args, **kwargs)

        return tell_and_do if self.leads else task

    def compare(self, value: _V) -> list[_V]:
        """What every rank says, in the order of ranks; all call this at the same point."""
        said: list[Any] = [None] * self.group.size()
        distributed.all_gather_object(said, value, self._told)
        return said

    def call_together(self, transformer: nn.Module, seams: Seams) -> Callable[[], None]:
        """Lets every call of the network on the first rank be one in all ranks, with the same packed history.

        What it gives undoes that; every rank calls it, or none.
        """
        before = transformer._compiled_call_impl
        inner = before or transformer._call_impl

        def call(entry: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            own, seams.entry = seams.entry, entry
            try:
                return inner(*args, **kwargs)
            finally:
                seams.entry = own

        together = self.everywhere(call)
        if self.leads:
            transformer._compiled_call_impl = lambda *args, **kwargs: together(seams.entry, args, kwargs)
        return lambda: setattr(transformer, "_compiled_call_impl", before)

    def follow(self) -> None:
        """Does what the first rank does, until it leaves.

        What the user can mend is raised by the first rank, too, and said there; the next task is awaited.
        """
        with torch.no_grad():
            while (message := self._hear()) is not None:
                number, args, kwargs = message
                try:
                    self._tasks[number](*args, **kwargs)
                except LongtakeError:
                    continue

    def leave(self) -> None:
        """Lets the others go, on the first rank. The network cannot be called together after that."""
        self._tell(None)

    def close(self) -> None:
        """Ends the groups and their threads, once nothing else holds them.

        A thread that lets go of what was told last while Python ends would abort the process.
        """
        del self.group, self._told
        distributed.destroy_process_group()
        gc.collect()

    def _tell(self, message: Any) -> None:
        letter = _Letter(self._device)
        letter.dump(message)
        shapes = [(tensor.shape, tensor.dtype) for tensor in letter.tensors]
        distributed.broadcast_object_list([letter.written.getvalue(), shapes], self._first, self._told)
        for tensor in letter.tensors:
            distributed.broadcast(tensor, self._first, self.group)

    def _hear(self) -> Any:
        heard: list[Any] = [None, None]
        distributed.broadcast_object_list(heard, self._first, self._told)
        written, shapes = heard
        tensors = [torch.empty(shape, dtype=dtype, device=self._device) for shape, dtype in shapes]
        for tensor in tensors:
            distributed.broadcast(tensor, self._first, self.group)
        return _Reader(written, tensors).load()


class _Letter(pickle.Pickler):
    """A message whose tensors on the device are left out, to be sent as they are."""

    def __init__(self, device: torch.device) -> None:
        self.written, self.tensors = io.BytesIO(), list[Tensor]()
        self._device = device
        super().__init__(self.written)

    def persistent_id(self, obj: Any) -> int | None:
        """The place of a tensor among those that are left out; None for what is written."""
        if not isinstance(obj, Tensor) or obj.device.type != self._device.type:
            return None
        self.tensors.append(obj.detach().clone(memory_format=torch.contiguous_format))  # a collective may write to it
        return len(self.tensors) - 1


class _Reader(pickle.Unpickler):
    """Reads a letter, with the tensors that were sent beside it in their places."""

    def __init__(self, written: bytes, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        super().__init__(io.BytesIO(written))

    def persistent_load(self, pid: int) -> Tensor:
        """The tensor that `_Letter` left out."""
        return self.tensors[pid]
