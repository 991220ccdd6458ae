# Sourced by the other scripts: the virtual environment they share. Not run by itself.

environment=.venv

say() { printf '== %s\n' "$*"; }

# Interpreter of at least Python 3.10 that makes the environment.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python python3.13 python3.12 python3.11 python3.10; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  say "no Python 3.10 or newer found; install one, or set PYTHON" >&2
  return 3
}

# free_gb FOLDER: gigabytes that are free there; nothing where df does not tell.
free_gb() {
  df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print int($4 / 1048576) }' || true
}

# On Linux torch comes with its CUDA libraries; pip ends with a bare "No space left on device" where they do not fit.
warn_of_full_disk() {
  local needed=7 free
  free=$(free_gb .)
  if [ "${free:-$needed}" -lt "$needed" ]; then
    say "only $free GB are free here; a new environment takes up to $needed GB. If this fails, free some space first." >&2
  fi
}

# make_environment [EXTRA]: .venv with requirements.txt and, if named, the packages of that extra. Quick when done before.
make_environment() {
  local extra="${1:-}" started=$SECONDS python stamp wanted
  if [ ! -x "$environment/bin/python" ]; then
    python=$(find_python)
    say "making $environment with $("$python" --version)"
    "$python" -m venv "$environment"
  fi
  stamp="$environment/.installed-${extra:-base}"
  wanted=$(cat requirements.txt pyproject.toml | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    say "installing packages${extra:+ and the extra '$extra'} (the first time this downloads torch)"
    warn_of_full_disk
    # Editable, so that the command `animportrait3d` exists and always runs this clone.
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -e ".${extra:+[$extra]}"
    printf '%s\n' "$wanted" >"$stamp"
  fi
  say "packages ready in $((SECONDS - started)) s"
}

# patiently COMMAND...: tried again for ten minutes while another process holds a lock that it needs. Silent if all is well.
patiently() {
  local log status waited=0
  log=$(mktemp)
  while true; do
    "$@" >"$log" 2>&1 && status=0 || status=$?
    if [ "$status" = 0 ]; then break; fi
    if [ "$waited" -ge 600 ] || ! grep -qiE 'could not get lock|unable to (acquire|lock)|ELOCKED|EBUSY' "$log"; then
      cat "$log" >&2
      break
    fi
    if [ "$waited" = 0 ]; then say "another process holds a lock that '$1' needs: waiting for it"; fi
    sleep 5
    waited=$((waited + 5))
  done
  rm -f "$log"
  return "$status"
}

# prepare_browser: playwright-core for the frontend tests, Khronos's glTF validator and two viewers of glTF files, in
# .venv/browser. Without node or Chromium the tests that need them skip by name.
prepare_browser() {
  local folder="$environment/browser"
  if ! command -v npm >/dev/null 2>&1; then
    say "no npm: the browser tests will be skipped"
    return
  fi
  if ! command -v chromium >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    say "installing Debian's Chromium for the browser tests"
    patiently apt-get install -y -qq chromium 2>/dev/null ||
      { patiently apt-get update -qq && patiently apt-get install -y -qq chromium; } ||
      say "Chromium could not be installed: the browser tests will be skipped"
  fi
  local package
  for package in playwright-core gltf-validator three babylonjs babylonjs-loaders; do
    if [ ! -d "$folder/node_modules/$package" ]; then
      mkdir -p "$folder"
      patiently npm install --no-audit --no-fund --prefix "$folder" "$package" ||
        say "$package could not be installed: the tests that need it will be skipped"
    fi
  done
}
