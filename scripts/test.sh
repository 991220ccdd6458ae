#!/usr/bin/env bash
# Makes .venv if needed, installs the requirements and the test tools, checks style and types, and runs the tests.
#   scripts/test.sh            the fast suite
#   scripts/test.sh --all      also slow tests, the browser, fuzz and kill tests
#   scripts/test.sh [--all] -- PYTEST ARGUMENTS
# Variables: PYTHON (interpreter that makes .venv), COMFYUI_DIR and COMFYUI_PYTHON (a ComfyUI checkout and its interpreter:
# the server tests run there, and are skipped by name otherwise), TEST_PROCESSES (test files that run beside each other,
# with one thread each; 2 if unset).
set -euo pipefail
cd "$(dirname "$0")/.."

all=no
if [ "${1:-}" = "--all" ]; then all=yes; shift; fi
if [ "${1:-}" = "--" ]; then shift; fi

. scripts/environment.sh
make_environment dev

markers="not slow and not browser and not fuzz"
if [ "$all" = yes ]; then
  markers=""
  prepare_browser
fi

# Parallel kernels compete with torch's threads for the same cores unless waiting threads sleep.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
processes="${TEST_PROCESSES:-2}"
if [ "$processes" -gt 1 ]; then export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"; fi
say "lint: ruff"
"$environment/bin/ruff" check .
say "types: mypy"
"$environment/bin/python" -m mypy
say "tests: pytest${markers:+ -m \"$markers\"}"
say "free: $(free_gb "${TMPDIR:-/tmp}") GB for temporary files, $(free_gb .) GB here"
started=$SECONDS
"$environment/bin/python" -m pytest -n "$processes" --dist loadfile --durations=40 \
  ${markers:+-m "$markers"} "$@"
say "tests passed in $((SECONDS - started)) s"
