#!/usr/bin/env bash
# Makes the embedded diffusion prior: data sets, codec, then text encoder, U-Net and ControlNet in three parts.
#
#   scripts/train_prior.sh [FOLDER]        FOLDER: for the data sets, states, logs and the pipeline (default: output/prior)
#
# May be stopped at any time; run again, it goes on where it was, also with another number of processes or on another
# device. Variables: IDENTITIES, MINUTES (of each part of this call), DEVICE (cpu, cuda, ...; cpu if not set), PROCESSES
# (that share the training on the CPU; 2 where there are two cores), START_FROM (a pipeline folder whose weights come
# first, such as the shipped one). When FOLDER/samples.png looks right and FOLDER/metrics.json is good enough, copy FOLDER/pipeline to
# animportrait3d_core/embedded/weights/prior.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

folder="${1:-output/prior}"
make_environment
animportrait3d="$environment/bin/python -m animportrait3d_core"
# On shared cores torch's threads otherwise spin while they wait: six times slower.
export OMP_WAIT_POLICY=PASSIVE

device="${DEVICE:-cpu}"
processes=1
# Two if there are two cores. More only for who asks: each takes 1.5 GB, cores that are counted are often halves of one,
# and the batches divide by powers of two.
if [ "$device" = cpu ] && [ "$(getconf _NPROCESSORS_ONLN)" -ge 2 ]; then processes=2; fi

train() { # data set, then further arguments
  $animportrait3d embedded train-prior --dataset "$1" --output "$folder" ${MINUTES:+--minutes "$MINUTES"} \
    --device "$device" --processes "${PROCESSES:-$processes}" "${@:2}"
}

people="${IDENTITIES:-2500}"
say "data set in $folder/dataset (what is there is kept)"
$animportrait3d embedded build-dataset --preset prior --output "$folder/dataset" --identities "$people" --seed 1
say "codec and first part in $folder"
train "$folder/dataset" --stages codec part1 ${START_FROM:+--start-from "$START_FROM"}
if ! grep -q '"finished": true' "$folder/part1/metrics.json"; then
  say "the first part is not finished: run this again"
  exit 0
fi
# The other parts see other people each, and no busts: what is left of the world is learned better. The last sees faces
# from farther away too, where clothes show.
part() { # number, then arguments of the data set
  say "data set $1 in $folder/dataset$1"
  $animportrait3d embedded build-dataset --output "$folder/dataset$1" --identities "$people" --seed "$1" "${@:2}"
  say "part $1 in $folder"
  train "$folder/dataset$1" --stages "part$1" --start-from "$folder/part$(($1 - 1))/pipeline"
  if ! grep -q '"finished": true' "$folder/part$1/metrics.json"; then
    say "part $1 is not finished: run this again"
    exit 0
  fi
}
part 2 --preset prior --regions face eyes mouth
part 3 --preset prior-wide
