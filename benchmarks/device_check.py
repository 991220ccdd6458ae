"""Everything that needs a CUDA GPU, checked in one short run: suites, and the same work on the GPU and on the CPU.

    scripts/device_check.sh                       # what to call: sets the environment
    python benchmarks/device_check.py --only gaussians training
    python benchmarks/device_check.py --device cpu --size small      # a rehearsal without a GPU

Prints a table and writes DIR/device_check.json after every check, so that a run that is cut off leaves what it had.
Exit code 0: nothing failed; 1: something failed; 3: torch sees no GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from _device_stages import paper_stages  # noqa: E402
from _device_work import WORK, Place, Skipped  # noqa: E402

from animportrait3d_core.errors import MissingExtension  # noqa: E402
from animportrait3d_core.files import write_json  # noqa: E402

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
NO_GPU = 3
SUITES = ("tests/render", "tests/surface", "tests/avatar", "tests/optimization", "tests/test_devices.py")
"""Where the conformance suites and the tests marked `gpu` lie."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the table. numbers: what was measured, milliseconds and seconds by name.  detail: in words."""

    name: str
    status: str
    seconds: float
    numbers: dict[str, float]
    detail: str


def machine(device: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    found: dict[str, Any] = {
        "device": device, "python": platform.python_version(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "cpus": os.cpu_count(),
    }  # fmt: skip
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = properties.name
        found["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
        found["capability"] = f"{properties.major}.{properties.minor}"
    return found


def extensions(place: Place) -> tuple[dict[str, float], str]:
    """Every back-end and whether it runs here; compiles gsplat if that was not done."""
    from animportrait3d_core.render import available_backends
    from animportrait3d_core.surface.hash_grid import available_backends as hash_grids

    start = time.perf_counter()
    backends = [*available_backends(compile_extensions=place.device == "cuda"), *hash_grids()]
    seconds = time.perf_counter() - start
    words = [f"{line.name}: {'runs' if line.usable else line.reason}" for line in backends]
    return {"seconds": seconds, "usable": sum(line.usable for line in backends)}, "; ".join(words)


def suites(place: Place) -> tuple[dict[str, float], str]:
    """The tests marked `gpu`, the conformance suites of gsplat and nvdiffrast among them, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"]
        command += [f"--junitxml={report}", *SUITES]
        left = max(30.0, place.seconds_left() - 60.0)
        try:
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the suites took more than {left:.0f} s") from error
        if not report.is_file():
            raise Skipped(f"pytest wrote no report: {(run.stderr or run.stdout).strip()[-300:]}")
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    if failed:
        raise AssertionError(
            f"{len(failed)} of {count['tests']} tests failed: {', '.join(failed[:8])}\n{run.stdout[-3000:]}"
        )
    passed = count["tests"] - count["skipped"]
    if passed == 0:
        raise Skipped(f"all {count['tests']} tests were skipped")
    return {"passed": passed, "skipped": count["skipped"]}, "pytest -m gpu " + " ".join(SUITES)


CHECKS = {"extensions": extensions, **WORK, "paper_stages": paper_stages, "suites": suites}


def carry_out(name: str, place: Place) -> Check:
    """One check; whatever goes wrong in it is its result, so that the others still run."""
    start = time.perf_counter()
    numbers: dict[str, float] = {}
    if place.seconds_left() <= 0:
        return Check(name, SKIPPED, 0.0, numbers, "no time was left (--budget)")
    try:
        numbers, detail = CHECKS[name](place)
        status = PASSED
    except (Skipped, ImportError, MissingExtension) as reason:
        status, detail = SKIPPED, f"{type(reason).__name__}: {reason}"
    except Exception:  # noqa: BLE001
        status, detail = FAILED, traceback.format_exc(limit=-4)
    return Check(name, status, time.perf_counter() - start, numbers, detail)


def line_of(check: Check) -> str:
    """One line of the table."""
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in check.numbers.items())
    detail = check.detail if check.status != PASSED or not numbers else ""
    return f"{check.name:12} {check.status:8} {check.seconds:7.1f} s  {numbers}{detail}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/device_check"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal without a GPU")
    parser.add_argument("--size", choices=("small", "full"), default="full", help="how much work each check does")
    parser.add_argument("--only", nargs="+", choices=CHECKS, help="some of the checks")
    parser.add_argument("--list", action="store_true", help="print the names of the checks and end")
    parser.add_argument("--budget", type=float, default=285.0, help="seconds after which no further check begins")
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.list:
        print("\n".join(f"{name:12} {check.__doc__.splitlines()[0]}" for name, check in CHECKS.items()))
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        print(
            f"device_check: torch {torch.__version__} ({build}) sees no CUDA GPU; nothing was checked. Run it on a "
            "machine with one, or rehearse it with --device cpu.",
            file=sys.stderr,
        )
        return NO_GPU
    place = Place(options.device, options.size == "small", time.monotonic() + options.budget)
    report: dict[str, Any] = {"machine": machine(options.device), "checks": []}
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()), flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    checks = []
    for name in options.only or CHECKS:
        checks.append(carry_out(name, place))
        print(line_of(checks[-1]), flush=True)
        report["checks"] = [dataclasses.asdict(check) for check in checks]
        write_json(options.output / "device_check.json", report)
    failed = [check.name for check in checks if check.status == FAILED]
    skipped = [check.name for check in checks if check.status == SKIPPED]
    print(f"{len(checks)} checks, failed: {failed or 'none'}, skipped: {skipped or 'none'}; {options.output}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
