"""The process that reads damaged files, one after the other, and says on its output how each ended.

Run by `run`, which starts another one where this one crashed or hangs. Lines of JSON: {"format", "begin": number}, then
{"format", "number", "outcome", "error", "message", "seconds", "peak_mib"}.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import importlib
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from animportrait3d_core.errors import AnimPortraitError, machine_trouble
from tests.fuzz.format import Format, Seed, damaged

SPARE_BYTES = 6 << 30
"""Address space beyond what the whole files took; more is refused by the system, which is then noted."""

MESSAGE_LENGTH = 2000
"""A message longer than this is no message."""


def formats_of(module: str) -> dict[str, Format]:
    """The table `FORMATS` of a module, by name."""
    return {entry.name: entry for entry in importlib.import_module(module).FORMATS}


def write(seed: Seed, folder: Path) -> Path:
    """Write the files; the path of the one that is opened."""
    for name, data in seed.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / seed.main


def outcome_of(entry: Format, path: Path) -> dict[str, Any]:
    """How reading ends: 'result', 'named' error, or a fault: 'other' exception, 'memory', 'warning', 'message'."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            entry.read(path)
            found = {"outcome": "result"}
        except AnimPortraitError as error:
            found = {"outcome": "named", **_described(error)}
            if _wants_memory(error):
                found["outcome"] = "memory"
            elif len(str(error)) > MESSAGE_LENGTH or not str(error):
                found["outcome"] = "message"
        except BaseException as error:  # whatever it is, it is what this looks for
            found = {"outcome": "other", **_described(error), "traceback": traceback.format_exc()[-3000:]}
    if caught and found["outcome"] in ("result", "named"):
        first = caught[0]
        where = f"{first.filename}:{first.lineno}"
        found = {"outcome": "warning", "error": first.category.__name__, "message": f"{first.message} ({where})"}
    return found


def _described(error: BaseException) -> dict[str, str]:
    cause = error.__cause__ or error.__context__
    of_other = f" <- {type(cause).__name__}" if cause is not None else ""
    return {"error": f"{type(error).__name__}{of_other}", "message": str(error)[:400]}


def _wants_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, is that the machine has no memory for what the file asks for."""
    while error is not None:
        if isinstance(error, MemoryError) or "no more memory" in (machine_trouble(error) or ""):
            return True
        error = error.__cause__ or error.__context__
    return False


def peak_mib() -> float:
    """Most resident memory since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def reset_peak() -> None:
    """Begin to measure anew (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def limit_memory() -> None:
    """Refuse address space far beyond what is in use; later calls change nothing."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, resource.RLIM_INFINITY))


@contextlib.contextmanager
def dump_when_late(seconds: float) -> Iterator[None]:
    """Write where the program is to the standard error after so many seconds."""
    faulthandler.dump_traceback_later(seconds, exit=False)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def try_file(entry: Format, path: Path, limit: float, most_mib: int) -> dict[str, Any]:
    """One file's line, with time and peak memory."""
    reset_peak()
    started = time.perf_counter()
    with dump_when_late(0.9 * limit):
        found = outcome_of(entry, path)
    found |= {"seconds": round(time.perf_counter() - started, 3), "peak_mib": round(peak_mib())}
    if found["peak_mib"] > most_mib:
        found["outcome"] = "memory"
    return found


@dataclasses.dataclass(frozen=True)
class Task:
    """names: formats, read in this order.  first, last: range of numbers.  begin: where the first format goes on.
    module: with the table of formats.  round_name: another gives other files.  limit: seconds for one file.
    peak_mib: resident memory that no file may need, the program itself included."""

    names: list[str]
    first: int
    last: int
    begin: int
    module: str
    round_name: str
    limit: float
    peak_mib: int


def read_files(task: Task, entry: Format, begin: int, say: Callable[..., None]) -> None:
    """All files of a format from the number `begin` on; the whole ones first, which must be read."""
    seeds = entry.seeds()
    with tempfile.TemporaryDirectory() as folder:
        for index, seed in enumerate(seeds):
            whole = outcome_of(entry, write(seed, Path(folder) / f"whole{index}"))
            if whole["outcome"] != "result":
                say(seed=index, **whole)
                raise SystemExit(f"the whole file {index} of '{entry.name}' is not read")
        limit_memory()
        for number in range(begin, task.last):
            path = write(damaged(seeds, f"{task.round_name}/{entry.name}", number), Path(folder) / str(number))
            say(begin=number)
            say(number=number, **try_file(entry, path, task.limit, task.peak_mib))
            shutil.rmtree(Path(folder) / str(number))


def main() -> None:
    """Carry out the task of the only argument, which is JSON."""
    task = Task(**json.loads(sys.argv[1]))
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not end up among the lines
    known = formats_of(task.module)
    for index, name in enumerate(task.names):

        def say(name: str = name, **line: Any) -> None:
            print(json.dumps({"format": name, **line}), file=output, flush=True)

        read_files(task, known[name], task.first if index else task.begin, say)


if __name__ == "__main__":
    main()
