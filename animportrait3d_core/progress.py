"""How far long work is, told by callbacks, and where it may be stopped: from within them, and at places without one."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int, "Tensor | None"], None]
"""progress(step, total, preview): `step` of `total` steps are done; preview: [H, W, 3] in 0..1, or None."""

Report = Callable[[int, int, Mapping[str, float]], None]
"""report(step, total, values) of work that is followed by numbers: values by name, empty where a step has none."""

Stages = Callable[[str], Progress]
"""stages(name): the progress of one named stage of work that has several; each stage counts from its own first step."""


Result = TypeVar("Result")

_LOOK: contextvars.ContextVar[Callable[[], None] | None] = contextvars.ContextVar("animportrait3d_look", default=None)
_SECONDS_BETWEEN_LOOKS = 0.1
_left_behind: list[threading.Thread] = []


@contextlib.contextmanager
def stopped_by(look: Callable[[], None] | None) -> Iterator[None]:
    """Within the block, in this thread, `may_stop()` calls `look`, which raises to end the work; None: it goes on.

    Waits for what earlier stops have left behind: parsers and compilers do not bear two threads at once.
    """
    while look is not None and _left_behind:
        look()
        _left_behind[-1].join(_SECONDS_BETWEEN_LOOKS)
        if not _left_behind[-1].is_alive():
            _left_behind.pop()
    token = _LOOK.set(look)
    try:
        yield
    finally:
        _LOOK.reset(token)


def may_stop() -> None:
    """Called between two parts of work that moves no bar, where an exception leaves nothing half done."""
    look = _LOOK.get()
    if look is not None:
        look()


def behind(work: Callable[[], Result]) -> Result:
    """What `work` gives, from a thread of its own while this one looks whether it may stop.

    For what cannot be interrupted and is of use later: imports, the compiling of kernels, files that are made once.
    After a stop it goes on to its end, and what it gives is dropped. Without anybody who may stop it, it is simply
    called.
    """
    if _LOOK.get() is None:
        return work()
    given: list[Result] = []
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            given.append(work())
        except BaseException as error:  # of the thread that waits
            raised.append(error)
        finally:
            done.set()

    context = contextvars.copy_context()
    context.run(_LOOK.set, None)  # looks are for the thread that may be stopped
    thread = threading.Thread(target=context.run, args=(run,), name="animportrait3d-behind", daemon=True)
    thread.start()
    try:
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            may_stop()
    except BaseException:
        _left_behind.append(thread)
        raise
    if raised:
        raise raised[0]
    return given[0]


class TimeLeft:
    """How long work that goes on at the same pace will still take; nothing is said of its first seconds."""

    WAIT = 5.0

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last = 0

    def text(self, step: int, total: int) -> str:
        """ "1:05 left", or "" where that cannot be known. A step before the last one begins other work."""
        now = time.monotonic()
        if self._first is None or step < self._last:
            self._first = (now, step)
        self._last = step
        begun, first = self._first
        if now - begun < self.WAIT or step <= first or step >= total:
            return ""
        seconds = round((now - begun) / (step - first) * (total - step))
        minutes, seconds = divmod(seconds, 60)
        return f"{minutes}:{seconds:02} left" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min left"


def tell_values(progress: Progress | None, values: Mapping[str, float]) -> None:
    """The terms of a step's loss, to a progress that has a `values` of its own to show them by; before the step."""
    show = getattr(progress, "values", None)
    if show is not None:
        show(values)


def stage_of(stages: Stages | None, name: str) -> Progress | None:
    """Progress of the stage `name`; None if nobody watches."""
    return None if stages is None else stages(name)
