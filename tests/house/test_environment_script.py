"""What the scripts share waits where another process is at work, and only there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = """
. scripts/environment.sh
sleep() { :; }
tries=0
busy() { tries=$((tries + 1)); [ "$tries" -gt 3 ] || { echo "E: Could not get lock /var/lib/dpkg/lock"; return 100; }; }
broken() { tries=$((tries + 1)); echo "no such package"; return 7; }
patiently "$1" && status=0 || status=$?
echo "$status after $tries"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(("command", "end"), [("busy", "0 after 4"), ("broken", "7 after 1")])
def test_locks_are_waited_for_and_errors_are_not(command, end):
    done = subprocess.run(["bash", "-euc", COMMAND, "bash", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == end
    assert ("no such package" in done.stderr) == (command == "broken")
    assert ("waiting" in done.stdout) == (command == "busy")
