#!/usr/bin/env bash
# Reads damaged files of every format and prints how each ended; exit code 1 if one ended as it must not.
#
#   scripts/fuzz.sh [COUNT] [FOLDER] [ARGUMENTS]
#
# COUNT: files of each format (default: 3000, one to two hours on one core).  FOLDER: for the logs, and for the files that
# ended badly (default: output/fuzz).  ARGUMENTS: of tests/fuzz/run.py, such as --format glb, or --format glb --only 417,
# which reads one file again. Variable: PYTHON (an interpreter that has the packages; else .venv is made and used).
set -euo pipefail
cd "$(dirname "$0")/.."

count="${1:-3000}"
folder="${2:-output/fuzz}"
shift $(($# < 2 ? $# : 2))
if [ -z "${PYTHON:-}" ]; then
  . scripts/environment.sh
  make_environment dev
  PYTHON="$environment/bin/python"
fi
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
exec nice "$PYTHON" -m tests.fuzz.run --count "$count" --output "$folder" "$@"
