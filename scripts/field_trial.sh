#!/usr/bin/env bash
# Makes an avatar of every head in a folder and prints how each went; exit code 1 if one of them ended without an avatar.
#
#   scripts/field_trial.sh FOLDER [OUTPUT] [ARGUMENTS]
#
# FOLDER: with GLB, glTF, OBJ, PLY, STL and OFF files.  OUTPUT: a folder of results for each head, with its contact sheet, and
# table.md (default: output/field_trial).  ARGUMENTS: of `animportrait3d run workflows/mesh_portrait.json`, for all heads.
# Variable: PYTHON (an interpreter that has the packages; else .venv is made and used).
set -euo pipefail
folder="$(cd "${1:?usage: scripts/field_trial.sh FOLDER [OUTPUT] [ARGUMENTS]}" && pwd)"
here="$PWD"
cd "$(dirname "$0")/.."
output="${2:-output/field_trial}"
case "$output" in /*) ;; *) [ $# -ge 2 ] && output="$here/$output" ;; esac
shift $(($# < 2 ? $# : 2))
if [ -z "${PYTHON:-}" ]; then
  . scripts/environment.sh
  make_environment mesh
  PYTHON="$environment/bin/python"
fi
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
exec "$PYTHON" scripts/field_trial.py "$folder" "$output" "$@"
