#!/usr/bin/env bash
# Runs what needs a CUDA GPU, in one go of less than five minutes: the conformance suites of the GPU back-ends, the tests
# marked `gpu`, and the same work on GPU and CPU side by side, with seconds. Installs nothing and needs no network.
#   scripts/device_check.sh                    everything
#   scripts/device_check.sh --only NAME ...    some checks (--list names them)
#   scripts/device_check.sh --device cpu       a rehearsal on a machine without GPU
# Variables: PYTHON (interpreter with the pack's requirements; python3 if not set), OUT (folder of device_check.json;
# output/device_check if not set). Ends with 0 if nothing failed, 1 if something did, 3 without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# Parallel kernels compete with torch's threads for the same cores unless waiting threads sleep.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
exec "${PYTHON:-python3}" benchmarks/device_check.py --output "${OUT:-output/device_check}" "$@"
