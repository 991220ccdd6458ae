"""Damaged files of every format end as a value or as a named error; and what ends otherwise is caught."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.format import damaged
from tests.fuzz.formats import FORMATS
from tests.fuzz.planted import WHOLE
from tests.fuzz.planted import seeds as planted_seeds
from tests.fuzz.run import FAULTS, ROOT, Plan, fuzz, main

COUNT = 100
PLANTED = {
    "read_well": "named",
    "raise_key_error": "other",
    "hang": "hang",
    "crash": "crash",
    "leave": "crash",
    "take_memory": "memory",
    "ask_for_memory": "memory",
    "warn": "warning",
    "quote_the_file": "message",
}


@pytest.mark.fuzz
@pytest.mark.timeout(600)
def test_damaged_files_of_every_format_end_well(tmp_path):
    names = [entry.name for entry in FORMATS]
    rows = fuzz(Plan(tmp_path, COUNT), names).rows
    assert [(row["format"], fault) for row in rows for fault in FAULTS if row[fault]] == []
    # Neither is all damage found at once, nor none.
    assert len(rows) == len(names) and all(row["named"] and row["result"] for row in rows)


def test_every_kind_of_fault_is_caught_and_kept(tmp_path):
    """Two damaged files for each reader of `planted`, of which one crashes, one hangs, ..."""
    rows = {row["format"]: row for row in fuzz(planted_plan(tmp_path), list(PLANTED)).rows}
    assert {name: rows[name][outcome] for name, outcome in PLANTED.items()} == dict.fromkeys(PLANTED, 2)
    kept = {folder.name for folder in (tmp_path / "faults").iterdir()}
    assert kept == {f"{name}-{number}" for name in PLANTED if name != "read_well" for number in (0, 1)}
    lines = [json.loads(line) for line in (tmp_path / "hang.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1] and "planted.py" in lines[0]["traceback"]


def planted_plan(folder) -> Plan:
    return Plan(folder, 2, module="tests.fuzz.planted", limit=8.0, peak_mib=256)


@pytest.mark.parametrize(("name", "code"), [("read_well", 0), ("raise_key_error", 1)])
def test_exit_code_tells(tmp_path, capsys, name, code):
    arguments = ["--count", "2", "--output", str(tmp_path), "--module", "tests.fuzz.planted", "--format", name]
    assert main(arguments) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"| {name} | 0 | {2 - 2 * code} | {2 * code} |")


def test_a_number_gives_the_same_file_again():
    seeds = planted_seeds()
    files = [damaged(seeds, "0/a", number).files["a.json"] for number in range(200)]
    assert files == [damaged(seeds, "0/a", number).files["a.json"] for number in range(200)]
    assert len(set(files)) > 150 and files.count(WHOLE) < 20
    assert files != [damaged(seeds, "1/a", number).files["a.json"] for number in range(200)]


SUMS = """
import hashlib, json
from tests.fuzz.formats import FORMATS
files = [(entry.name, data) for entry in FORMATS for seed in entry.seeds() for data in seed.files.values()]
print(json.dumps([(name, hashlib.sha256(data).hexdigest()) for name, data in files]))
"""


def test_whole_files_are_the_same_in_every_process():
    """Without this, the number of a fault would mean another file tomorrow."""
    runs = [subprocess.run([sys.executable, "-c", SUMS], cwd=ROOT, capture_output=True, check=True) for _ in range(2)]
    first, second = (json.loads(run.stdout) for run in runs)
    assert first == second and len(first) > 30
