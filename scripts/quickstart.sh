#!/usr/bin/env bash
# From a fresh clone to an animated avatar on the embedded world: makes .venv, installs the requirements, runs
# workflows/quickstart.json and leaves the results in output/quickstart/. Further arguments go to `animportrait3d run`.
# Variables: PYTHON (interpreter that makes .venv).
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/environment.sh
make_environment

# Parallel kernels compete with torch's threads for the same cores unless waiting threads sleep.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
say "running workflows/quickstart.json on the embedded world; results in output/quickstart"
started=$SECONDS
"$environment/bin/python" -m animportrait3d_core run workflows/quickstart.json --output output/quickstart "$@"
say "done in $((SECONDS - started)) s (package installation not counted):"
ls -l output/quickstart
