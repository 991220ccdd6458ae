"""Damaged files of every format, and how each ended: python -m tests.fuzz.run --count 3000 --output FOLDER.

Each format gets a table row, FOLDER/<format>.jsonl a line for each file, and FOLDER/faults/<format>-<number>/ the files
that ended as they must not. Exit code 1 if there is one. `--format glb --only 417` reads one number again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tests.fuzz.format import Seed, damaged
from tests.fuzz.worker import Task, formats_of, outcome_of, write

ROOT = Path(__file__).parents[2]
SECONDS_PER_FILE = 20.0
SECONDS_BETWEEN_FILES = 300.0
"""For imports, for the whole files, and to damage one."""

FAULTS = ("other", "memory", "warning", "message", "crash", "hang")
COLUMNS = ("result", "named", *FAULTS)


@dataclasses.dataclass(frozen=True)
class Plan:
    """module: with the table of formats.  first, count: numbers of the files.  round_name: another gives other files.
    limit: seconds for one file.  peak_mib: resident memory that no file may need, the program itself included."""

    output: Path
    count: int = 100
    first: int = 0
    module: str = "tests.fuzz.formats"
    round_name: str = "0"
    limit: float = SECONDS_PER_FILE
    peak_mib: int = 2048

    def key(self, name: str) -> str:
        return f"{self.round_name}/{name}"


class Worker:
    """A running worker and its lines."""

    def __init__(self, plan: Plan, names: list[str], begin: int, errors: IO[bytes]) -> None:
        last = plan.first + plan.count
        task = Task(names, plan.first, last, begin, plan.module, plan.round_name, plan.limit, plan.peak_mib)
        self.errors = errors
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", json.dumps(dataclasses.asdict(task))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )
        assert self.process.stdout is not None
        self.stream, self.rest = self.process.stdout.fileno(), b""

    def line(self, seconds: float) -> dict[str, Any] | None:
        """The next line; None if the process has ended. TimeoutError if none comes."""
        end = time.monotonic() + seconds
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.stream], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            data = os.read(self.stream, 1 << 16)
            if not data:
                return None
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return dict(json.loads(line))

    def end(self) -> None:
        """Stop the process."""
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """The end of what it wrote to its standard error."""
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")[-3000:]


def lines_of(plan: Plan, names: list[str]) -> Iterator[dict[str, Any]]:
    """A line for each file of the formats, those that ended a worker included, in order."""
    numbers = range(plan.first, plan.first + plan.count)
    due = [(name, number) for name in names for number in numbers]
    done = 0
    while done < len(due):
        name, number = due[done]
        with tempfile.TemporaryFile() as errors:
            worker = Worker(plan, names[names.index(name) :], number, errors)
            for line in _lines_of_worker(plan, worker, due[done:]):
                yield line
                done += 1


def _lines_of_worker(plan: Plan, worker: Worker, due: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Lines until all files are read, or one ends the worker: of each file one when it begins, and one when it ends."""
    for name, number in due:
        fault = {"format": name, "number": number}
        begin = worker.line(SECONDS_BETWEEN_FILES)
        if begin is None or "begin" not in begin:
            worker.end()
            raise SystemExit(f"fuzz: {name} {number} was not begun: {begin} {worker.said()}")
        try:
            line = worker.line(plan.limit)
        except TimeoutError:
            worker.end()
            yield {**fault, "outcome": "hang", "seconds": plan.limit, "traceback": worker.said()}
            return
        if line is None:
            code = -worker.process.wait()
            error = signal.Signals(code).name if code > 0 else f"exit code {-code}"
            yield {**fault, "outcome": "crash", "error": error, "traceback": worker.said()}
            return
        yield line
    worker.end()


class Table:
    """Logs lines, keeps the files of faults, and counts."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.known = plan, formats_of(plan.module)
        self.rows: list[dict[str, Any]] = []
        self.seeds: dict[str, list[Seed]] = {}
        self.started = 0.0
        plan.output.mkdir(parents=True, exist_ok=True)

    def begin(self, name: str) -> None:
        zeros = dict.fromkeys((*COLUMNS, "peak MiB"), 0)
        self.rows.append({"format": name, **zeros, "slowest s": 0.0, "seconds": 0})
        self.started = time.perf_counter()

    def add(self, line: dict[str, Any]) -> None:
        row, name, number = self.rows[-1], line["format"], line.get("number")
        with open(self.plan.output / f"{name}.jsonl", "a", encoding="utf-8") as log:
            print(json.dumps(line), file=log)
        row[line["outcome"]] += 1
        row["peak MiB"] = max(row["peak MiB"], line.get("peak_mib", 0))
        row["slowest s"] = max(row["slowest s"], line.get("seconds", 0.0))
        row["seconds"] = round(time.perf_counter() - self.started)
        if line["outcome"] in FAULTS:
            if name not in self.seeds:
                self.seeds[name] = self.known[name].seeds()
            files = damaged(self.seeds[name], self.plan.key(name), number)
            write(files, self.plan.output / "faults" / f"{name}-{number}")
            print(f"  {name} {number}: {line['outcome']} {line.get('error', '')}", file=sys.stderr, flush=True)

    def print_last(self) -> None:
        """The last row, after the titles if it is the first."""
        if len(self.rows) == 1:
            print("| " + " | ".join(self.rows[0]) + " |\n" + "|---" * len(self.rows[0]) + "|")
        print("| " + " | ".join(map(str, self.rows[-1].values())) + " |", flush=True)

    @property
    def is_clean(self) -> bool:
        return not any(row[fault] for row in self.rows for fault in FAULTS)


def fuzz(plan: Plan, names: list[str]) -> Table:
    """Read the files of all formats; the table is printed as it grows."""
    table = Table(plan)
    for line in lines_of(plan, names):
        if not table.rows or table.rows[-1]["format"] != line["format"]:
            if table.rows:
                table.print_last()
            table.begin(line["format"])
        table.add(line)
    table.print_last()
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="files of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "fuzz", help="folder for logs and faults")
    parser.add_argument("--format", action="append", help="only this one; may be given again")
    parser.add_argument("--only", type=int, help="read this number of one format here, with the whole traceback")
    parser.add_argument("--module", default="tests.fuzz.formats", help="module with the table FORMATS")
    parser.add_argument("--round", default="0", help="another name gives other files")
    options = parser.parse_args(arguments)
    plan = Plan(options.output, options.count, options.first, options.module, options.round)
    known = formats_of(plan.module)
    names = options.format or list(known)
    if options.only is None:
        return 0 if fuzz(plan, names).is_clean else 1
    entry = known[names[0]]
    files = damaged(entry.seeds(), plan.key(entry.name), options.only)
    path = write(files, plan.output / "again" / f"{entry.name}-{options.only}")
    print(json.dumps({"file": str(path), **outcome_of(entry, path)}, indent=1).replace("\\n", "\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
