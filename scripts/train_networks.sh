#!/usr/bin/env bash
# Makes the embedded weights of the 2D networks: data set, then the networks for parts, normals and landmarks.
#
#   scripts/train_networks.sh [FOLDER]        FOLDER: for the data set, states, logs and networks (default: output/networks)
#
# They begin with the weights in START_FROM (default: the pack's own), which takes about an hour on two cores; with an
# empty START_FROM they begin with random ones, the last two in two rounds, which takes three. May be stopped at any
# time; run again, it goes on where it was. IDENTITIES, SIZE and MINUTES (per network and call) can be set in the
# environment. When a network is good enough (FOLDER/<name>/metrics.json, and its table by trait in the model card), copy
# FOLDER/<name>/network into animportrait3d_core/embedded/weights/<name>.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

folder="${1:-output/networks}"
start_from="${START_FROM-animportrait3d_core/embedded/weights}"
make_environment
animportrait3d="$environment/bin/python -m animportrait3d_core"

say "data set in $folder/dataset (what is there is kept)"
$animportrait3d embedded build-dataset --preset networks --output "$folder/dataset" \
  --identities "${IDENTITIES:-2000}" --images-per-identity 6 --size "${SIZE:-256}"

# train ROLE NAME [OPTION...]: one training, in $folder/NAME. One thread each, because two trainings beside each other
# are faster than one after the other.
train() {
  local role="$1" name="$2"
  shift 2
  say "network for $role in $folder/$name; what it does: $folder/$name/log.jsonl"
  $animportrait3d train-network "$role" --dataset "$folder/dataset" --output "$folder/$name" --resume --threads 1 \
    --quiet ${MINUTES:+--minutes "$MINUTES"} "$@"
}

# second ROLE [OPTION...]: a training that starts from the weights of ROLE_first, once that is over.
second() {
  local role="$1"
  shift
  if grep -q '"finished": true' "$folder/${role}_first/metrics.json"; then
    train "$role" "$role" --start-from "$folder/${role}_first/network" "$@"
  else
    say "the first training for $role is not over; run this again"
  fi
}

# tune ROLE NAME STEPS: a training in $folder/NAME that starts from a network which knows less of the world.
tune() {
  train "$1" "$2" --start-from "$start_from/$2" --steps "$3" --lr 1e-3
}

if [ -n "$start_from" ]; then
  { tune parts parts_on_surfaces 5000 && tune normals normals 3000; } &
  beside=$!
  tune landmarks landmarks 7000
else
  { train parts parts && train normals normals_first && second normals; } &
  beside=$!
  train landmarks landmarks_first --size 128 --batch-size 16
  second landmarks
fi
wait "$beside"
say "done; figures:"
grep -H '"mean_iou"\|"mean_angle"\|"landmark_error"' "$folder"/*/metrics.json || true
