"""Work that can be stopped, killed and taken up again: one folder a run, with its state and its log.

A run's key says what it was begun with. A state is taken up only by work with the same key; for anything else it is
refused, part by part by name. States are written in one piece, so that a kill leaves the last one whole, and all that a
step draws at random depends on its number (`randomness`), so that work that was taken up ends, on the CPU, bit for bit
as work that never stopped. Several processes may do one piece of work together: all take up the same state, the first
alone writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from . import __version__
from .errors import InvalidInput
from .files import parse_json, read_safetensors, write_safetensors
from .progress import stopped_by

LOGGER = logging.getLogger("animportrait3d")
STATE_FILE, LOG_FILE, LOCK_FILE = "state.safetensors", "log.jsonl", "lock"
SAVE_SECONDS = 1.0
"""No state is saved sooner after the last one."""
SAVE_SHARE = 0.02
"""Of the time, which saving takes at most: large states are saved more seldom."""
DAYS_KEPT = 30
"""States of automatic runs that nobody took up for so long are deleted."""
_FORMAT = "animportrait3d-run"


@dataclasses.dataclass(frozen=True)
class RunState:
    """Everything that changes while work is done. values: what JSON can hold."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Work(Protocol):
    """Something done in steps, with a state between any two of them.

    One whose steps take unequal time may say `next_step_is_long`: its state is then saved before such a step, and a
    stop does not wait for the step's end. Nor does it where the work says `may_stop_within_steps`: that its state is
    the one before the step until `step_index` counts up, and that nothing stops a step from then on.
    """

    @property
    def steps(self) -> int:
        """Steps in all."""

    @property
    def step_index(self) -> int:
        """Steps done."""

    def step(self) -> None:
        """Do one step; counts `step_index` up."""

    def state(self) -> RunState:
        """The state after the last step, for use before the next one: it may share memory with the work."""

    def restore(self, state: RunState) -> None:
        """Go on from a `state()` of work with the same key."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that do one piece of work together; each sees the run's folder.

    is_first: whether this is the one that writes.  agree: the first one's answer to a question, asked by all of them.
    """

    is_first: bool = True
    agree: Callable[[bool], bool] = bool


class Run:
    """A folder for one piece of work.

    where: the function that speaks in messages.  key: what the work was begun with, by parts; the first that differs
    is named.  save_seconds: time between two saved states at least; 0 saves after each step.  processes: this one
    among others.
    """

    def __init__(
        self,
        folder: str | Path,
        where: str,
        key: Mapping[str, str],
        save_seconds: float = SAVE_SECONDS,
        processes: Processes | None = None,
    ) -> None:
        self.folder, self.where, self.key, self.save_seconds = Path(folder), where, dict(key), save_seconds
        self.processes = processes or Processes()
        self._seconds_before = self._cost = 0.0
        self._started = self._saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent on the work in all sittings."""
        return self._seconds_before + time.perf_counter() - self._started

    @property
    def has_state(self) -> bool:
        """Whether there is something to take up."""
        return (self.folder / STATE_FILE).is_file()

    def resume(self, work: Work) -> bool:
        """Take up the folder's state, if there is one. Raises `InvalidInput` if it is damaged or of another key."""
        if not self.has_state:
            if self.processes.is_first:
                (self.folder / LOG_FILE).unlink(missing_ok=True)
            return False
        tensors, header = self._read()
        work.restore(RunState(tensors, header["values"]))
        self._seconds_before = header["seconds"]
        self._started = self._saved = time.perf_counter()
        self._cut_log(work.step_index)
        return True

    def save(self, work: Work) -> None:
        """Write the work's state in one piece. Raises `InvalidInput` where it cannot be written; the last one stays."""
        if not self.processes.is_first:
            return
        begun = time.perf_counter()
        state = work.state()
        header = {"key": self.key, "step": work.step_index, "seconds": self.seconds, "values": dict(state.values)}
        write_safetensors(self.folder / STATE_FILE, state.tensors, {"format": _FORMAT, "run": json.dumps(header)})
        self._saved = time.perf_counter()
        self._cost = self._saved - begun

    def save_if_due(self, work: Work) -> None:
        """Save at the end, and when the last state is so old that saving takes `SAVE_SHARE` of the time."""
        wait = self.save_seconds and max(self.save_seconds, self._cost / SAVE_SHARE)
        if work.step_index == work.steps or time.perf_counter() - self._saved >= wait:
            self.save(work)

    def log(self, values: Mapping[str, float]) -> None:
        """Append a line to the log; `values` holds "step". Lines after the last state are forgotten by `resume`."""
        if not self.processes.is_first:
            return
        line = json.dumps({name: round(value, 6) for name, value in values.items()}) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / LOG_FILE, "a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            raise InvalidInput(
                f"{self.where}: cannot write '{self.folder / LOG_FILE}' ({error.strerror}). Make room on the disk, "
                "then go on from the last state."
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else works in the folder meanwhile; raises `InvalidInput` if somebody does. A kill frees it."""
        if not self.processes.is_first:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LOCK_FILE, "ab") as stream:
            if not _take(stream.fileno()):
                raise InvalidInput(
                    f"{self.where}: the run in '{self.folder}' is at work in another process; wait for its end, stop "
                    "it, or choose another folder."
                )
            yield

    def remove(self) -> None:
        """Delete the folder: the work is done and its result in other hands (`finished_runs_kept`: not yet)."""
        if _KEPT:
            _KEPT[-1].append(self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        file = self.folder / STATE_FILE
        tensors, metadata = read_safetensors(file, self.where)
        if metadata.get("format") != _FORMAT:
            raise InvalidInput(f"{self.where}: '{file}' is no state of a run; choose another folder.")
        header = self._header(metadata)
        for part in dict.fromkeys([*self.key, *header["key"]]):
            found, expected = header["key"].get(part), self.key.get(part)
            if found != expected:
                raise InvalidInput(
                    f"{self.where}: the state in '{self.folder}' was made with another {part}: found {found}, expected "
                    f"{expected}. Resume with what it was begun with, or start anew in another folder."
                )
        return tensors, header

    def _header(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """What `save` wrote beside the tensors."""
        try:
            header = parse_json(metadata["run"])
            if not (isinstance(header["key"], dict) and isinstance(header["values"], dict)):
                raise ValueError("no tables")
            return {**header, "seconds": float(header["seconds"])}
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(
                f"{self.where}: '{self.folder / STATE_FILE}' is damaged (its header cannot be read). Delete the folder "
                f"'{self.folder}', and the work begins anew."
            ) from error

    def _cut_log(self, step: int) -> None:
        kept = [line for line in read_log(self.folder) if line["step"] <= step]
        file = self.folder / LOG_FILE
        if file.is_file() and self.processes.is_first:
            file.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


_KEPT: list[list[Path]] = []


@contextlib.contextmanager
def finished_runs_kept() -> Iterator[None]:
    """Runs that are done in this block are deleted at its end, and kept if it fails: their results may be lost with it,
    to a disk that is full for instance, and the same work finds them again."""
    _KEPT.append([])
    try:
        yield
    except BaseException:
        kept = sorted({str(folder) for folder in _KEPT.pop() if (folder / STATE_FILE).is_file()})
        if kept:
            LOGGER.warning(
                "The %d finished stages are kept in '%s': the same command goes on after them.",
                len(kept), Path(kept[0]).parent,
            )  # fmt: skip
        raise
    for folder in _KEPT.pop():
        shutil.rmtree(folder, ignore_errors=True)


def _take(file: int) -> bool:
    """Lock an open file until it is closed; False if another one has it locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        # Some network folders know no locks; a run there is guarded by nobody, as before.
        LOGGER.warning("A run cannot be guarded against others (%s): start none twice.", error.strerror)
    return True


def read_log(folder: str | Path) -> Iterator[dict[str, float]]:
    """The lines of a run's log; a line cut short by a kill ends it."""
    file = Path(folder) / LOG_FILE
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            yield json.loads(line)
        except ValueError:
            return


def automatic_run(runs: str | Path, where: str, key: Mapping[str, str]) -> Run:
    """The run of a key among `runs`: the same work finds its state again, whatever else was done meanwhile.

    The version of the pack belongs to the key. States that nobody took up for `DAYS_KEPT` days are deleted.
    """
    key = {**key, "version": __version__}
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=10).hexdigest()
    _forget_old(Path(runs))
    return Run(Path(runs) / f"{where}-{digest}", where, key)


def _forget_old(runs: Path) -> None:
    limit = time.time() - DAYS_KEPT * 86_400
    for file in runs.glob(f"*/{STATE_FILE}"):
        if file.stat().st_mtime < limit:
            shutil.rmtree(file.parent, ignore_errors=True)


def carry_out(
    work: Work, run: Run | None = None, report: Callable[[], None] | None = None, seconds: float = math.inf
) -> None:
    """Do what is left of the work, for at most `seconds`; with a run, from its state on and with states on the way.

    report: called after each step. What it raises ends the work; its last step is saved before. Raises `InvalidInput`
    if another process is at work in the run's folder.
    """
    with contextlib.nullcontext() if run is None else run.locked():
        _carry_out(work, run, report, seconds)


def _carry_out(work: Work, run: Run | None, report: Callable[[], None] | None, seconds: float) -> None:
    processes = Processes() if run is None else run.processes
    if run is not None and run.resume(work) and processes.is_first:
        LOGGER.info("%s: goes on at step %d of %d, where it was stopped.", run.where, work.step_index, work.steps)
    end, is_first = time.perf_counter() + seconds, True
    while work.step_index < work.steps and processes.agree(time.perf_counter() < end):
        _step(work, run, is_first)
        is_first = False
        if run is not None:
            run.save_if_due(work)
        try:
            if report is not None:
                report()
        except BaseException:  # cancelled: by the host, by Ctrl-C, by a test
            if run is not None:
                run.save(work)
            raise
    if run is not None and work.step_index < work.steps:
        run.save(work)


def _step(work: Work, run: Run | None, is_first: bool) -> None:
    """One step. is_first: of this sitting; a stop within it, while kernels compile, loses nothing that is not saved."""
    is_long, keeps_state = (getattr(work, name, False) for name in ("next_step_is_long", "may_stop_within_steps"))
    if is_long and run is not None and not is_first:
        run.save(work)
    before = work.step_index
    # Other steps are not stopped within: that would lose those since the last save.
    with contextlib.nullcontext() if is_first or is_long or keeps_state else stopped_by(None):
        try:
            work.step()
        except BaseException:
            if keeps_state and run is not None and not is_first and work.step_index == before:
                run.save(work)
            raise
