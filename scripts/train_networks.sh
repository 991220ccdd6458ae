#!/usr/bin/env bash
# Makes the embedded weights of the 2D networks: data set, then the networks for parts, normals and landmarks.
#
#   scripts/train_networks.sh [FOLDER]        FOLDER: for the data set, states, logs and networks (default: output/networks)
#
# May be stopped at any time; run again, it goes on where it was. IDENTITIES, SIZE and MINUTES (per network and call) can
# be set in the environment. When a network is good enough (FOLDER/<role>/metrics.json), copy FOLDER/<role>/network into
# animportrait3d_core/embedded/weights/<role>.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

folder="${1:-output/networks}"
make_environment
animportrait3d="$environment/bin/python -m animportrait3d_core"

say "data set in $folder/dataset (what is there is kept)"
$animportrait3d embedded build-dataset --preset networks --output "$folder/dataset" \
  --identities "${IDENTITIES:-2000}" --images-per-identity 6 --size "${SIZE:-256}"

for role in parts normals landmarks; do
  say "network for $role in $folder/$role"
  $animportrait3d train-network "$role" --dataset "$folder/dataset" --output "$folder/$role" --resume \
    ${MINUTES:+--minutes "$MINUTES"}
done
say "done; figures:"
grep -H '"mean_iou"\|"mean_angle"\|"landmark_error"' "$folder"/*/metrics.json || true
