"""Processes that share the work of each training step: every one computes the gradients of its rows, in one thread.

Two threads of one process wait for each other in every layer; two processes only once in a step. The calling process
draws the batches, computes its own part, and alone holds all that changes: optimiser, average, state. The others get
the weights through shared memory before they begin, and leave their gradients there. They know nothing of the run, so
that one that is lost costs no more than a step, and a run may go on with another number of them.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Iterable
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]  # unknown to typeshed
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from .gradients import LossFunction, Portion, add_gradients, divide

_ALIGNMENT = 16
"""Values to which the place of each parameter in shared memory is rounded up: a line of the cache."""
_SECONDS_TO_END = 10.0


class Workers:
    """`processes` of them with the calling one. A context; they start with the first step.

    losses: means over rows, which can be pickled.  model: on the CPU; its weights may change between steps in any way.
    Shared memory: the model's size for each process.
    """

    def __init__(self, losses: LossFunction, model: nn.Module, processes: int) -> None:
        self._losses, self._model, self._processes = losses, model, processes
        self._parameters = _trained(model)
        self._weights = self._shared()
        self._weight_views = _views(self._weights, self._parameters)
        self._workers: list[_Worker] = []
        self._threads = torch.get_num_threads()

    def __enter__(self) -> Workers:
        torch.set_num_threads(1)
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._threads)
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def add_gradients(self, whole: Portion) -> dict[str, float]:
        """As `gradients.add_gradients` of the model and the whole batch.

        Raises what the losses raise in any process, and `InvalidInput` when a process was ended from outside.
        """
        if not self._workers:
            self._start()
        with torch.no_grad():
            torch._foreach_copy_(self._weight_views, [value.detach() for value in self._parameters])
        own, *others = divide(whole, self._processes)
        for worker, portion in zip(self._workers, others, strict=True):
            worker.begin(portion)
        terms = add_gradients(self._losses, self._model, own)
        for worker in self._workers:
            for name, value in worker.finish(self._parameters).items():
                terms[name] = terms.get(name, 0.0) + value
        return terms

    def _start(self) -> None:
        task = pickle.dumps((self._losses, self._model))
        for number in range(2, self._processes + 1):
            where = f"train: process {number} of {self._processes}"
            self._workers.append(_Worker(where, task, self._weights, self._shared(), self._parameters))

    def _shared(self) -> Tensor:
        """Room for a value of each trained parameter, in shared memory."""
        sizes = [_room(value) for value in self._parameters]
        try:
            return torch.zeros(sum(sizes), dtype=self._parameters[0].dtype).share_memory_()
        except RuntimeError as error:
            needed = self._processes * sum(sizes) * self._parameters[0].element_size() / 1e6
            raise InvalidInput(
                f"train: {self._processes} processes need {needed:.0f} MB of shared memory ({error}). Give the machine "
                "more (docker run --shm-size), or go on with fewer --processes."
            ) from error


class _Worker:
    """One process, as the calling one sees it. where: how messages name it."""

    def __init__(
        self, where: str, task: bytes, weights: Tensor, gradients: Tensor, parameters: list[nn.Parameter]
    ) -> None:
        self._where, self._steps = where, 0
        self._gradients, self._views = gradients, _views(gradients, parameters)
        # A fresh interpreter: forking a process in which torch has threads can hang.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, task, weights, gradients), daemon=True)
        self._process.start()
        # Only the process itself holds its end now: the line breaks when it ends.
        theirs.close()

    def begin(self, portion: Portion) -> None:
        """Send it what to compute."""
        try:
            # Not `send`, which would make a file in shared memory for each tensor.
            self._connection.send_bytes(pickle.dumps(portion))
        except OSError as error:
            raise self._lost() from error

    def finish(self, parameters: Iterable[nn.Parameter]) -> dict[str, float]:
        """Add its gradients to those of the parameters; its terms."""
        try:
            answer: Any = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(answer, BaseException):
            raise answer
        terms, heard = answer
        for parameter, view, has_gradient in zip(parameters, self._views, heard, strict=True):
            if has_gradient:
                parameter.grad = view.clone() if parameter.grad is None else parameter.grad.add_(view)
        self._steps += 1
        return terms

    def end(self) -> None:
        """End the process; it holds nothing that anybody needs."""
        self._connection.close()
        self._process.terminate()
        self._process.join()

    def _lost(self) -> InvalidInput:
        self._process.join(_SECONDS_TO_END)
        code = self._process.exitcode
        if not self._steps and code == 1:
            return InvalidInput(
                f"{self._where} ended before its first step; what it printed says why. A script that trains with "
                "several processes must do so under `if __name__ == '__main__':`."
            )
        how = "by signal " + str(-code) if code is not None and code < 0 else f"with exit code {code}"
        return InvalidInput(
            f"{self._where} was ended from outside ({how}), most likely because memory ran out. Go on from the last "
            "state, if need be with fewer --processes."
        )


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [value for value in model.parameters() if value.requires_grad]


def _room(parameter: Tensor) -> int:
    return -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT


def _views(flat: Tensor, parameters: Iterable[Tensor]) -> list[Tensor]:
    """For each parameter a piece of flat memory with its shape and strides, one behind the other."""
    pieces, start = [], 0
    for value in parameters:
        pieces.append(flat.as_strided(value.shape, value.stride(), start))
        start += _room(value)
    return pieces


def _work(connection: Connection, task: bytes, weights: Tensor, gradients: Tensor) -> None:
    """What a process does until its line breaks, because the training is over or the process that asked is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    losses, model = pickle.loads(task)
    parameters = _trained(model)
    for parameter, view in zip(parameters, _views(weights, parameters), strict=True):
        parameter.data = view
    views = _views(gradients, parameters)
    while True:
        try:
            portion = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        answer = _answer(losses, model, portion, parameters, views)
        try:
            connection.send(answer)
        except OSError:
            return


def _answer(
    losses: LossFunction, model: nn.Module, portion: Portion, parameters: list[nn.Parameter], views: list[Tensor]
) -> Any:
    """(terms, which parameters have a gradient), the gradients being in the views; or what was raised."""
    model.zero_grad(set_to_none=True)
    try:
        terms = add_gradients(losses, model, portion)
    except Exception as error:  # it is raised again in the process that asked
        return ExceptionWithTraceback(error, error.__traceback__)
    heard = [value.grad is not None for value in parameters]
    for parameter, view in zip(parameters, views, strict=True):
        if parameter.grad is not None:
            view.copy_(parameter.grad)
    return terms, heard
