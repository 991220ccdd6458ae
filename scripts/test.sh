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

markers="not browser and not slow and not fuzz"
if [ "$all" = yes ]; then
  markers="not browser"
  prepare_browser
fi

# Parallel kernels compete with torch's threads for the same cores unless waiting threads sleep.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
processes="${TEST_PROCESSES:-2}"
say "lint: ruff"
"$environment/bin/ruff" check .
say "types: mypy"
"$environment/bin/python" -m mypy
# run_tests MARKERS [ARGUMENTS]: it is no failure if none of the tests that ARGUMENTS choose has the markers.
run_tests() {
  say "tests: pytest -m \"$1\""
  local status=0
  "$environment/bin/python" -m pytest --durations=40 -m "$@" || status=$?
  [ "$status" -eq 0 ] || [ "$status" -eq 5 ] || exit "$status"
}

say "free: $(free_gb "${TMPDIR:-/tmp}") GB for temporary files, $(free_gb .) GB here"
started=$SECONDS
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" run_tests "$markers" -n "$processes" --dist loadfile --no-loadscope-reorder "$@"
# A page and a browser beside other tests would be too slow for the patience of both.
if [ "$all" = yes ]; then run_tests browser "$@"; fi
say "tests passed in $((SECONDS - started)) s"
