# Shared by .ci/run and .ci/long: finds a Python, runs steps, prints what came of them. Sourced by bash.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONUNBUFFERED=1 NO_COLOR=1 HATCH_INTERACTIVE=0 PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH VIRTUAL_ENV HATCH_ENV_ACTIVE
unset PYTHONDONTWRITEBYTECODE # the tests start hundreds of interpreters, which start twice as fast from bytecode
exec </dev/null

work=$(mktemp -d)
trap 'rm -rf "$work"; kill ${dapr_build:-} 2>/dev/null' EXIT
: >"$work/all" # the output of all steps, from which the totals are counted
steps=() failures=0

# Prints a Python >= 3.10 that can make virtual environments.
find_python() {
  local candidate
  for candidate in python3 python python3.{14,13,12,11,10} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-4].*/bin/python; do
    if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  # Debian and Ubuntu split the part of Python that makes virtual environments off.
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    { apt-get update && apt-get install -y python3 python3-venv; } >&2 && command -v python3
  fi
}

# step NAME COMMAND...: runs the command, keeps its output for the totals, and its outcome and time for the end.
step() {
  local name=$1 started=$SECONDS outcome=ok
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  "$@" 2>&1 | tee "$work/log"
  if [ "${PIPESTATUS[0]}" -ne 0 ]; then
    outcome=FAILED
    failures=$((failures + 1))
  fi
  cat "$work/log" >>"$work/all"
  steps+=("$(printf '%-40s %-6s %5d s' "$name" "$outcome" $((SECONDS - started)))")
}

# skip NAME REASON: a line at the end for a step that was not run.
skip() {
  steps+=("$(printf '%-40s %s' "$1" "$2")")
}

# Puts hatch on PATH, in an environment and with folders of its own: a run starts from nothing and leaves nothing.
install_hatch() {
  "$python" -m venv "$work/tools" && "$work/tools/bin/python" -m pip install --quiet "hatch>=1.18,<2"
  export PATH="$work/tools/bin:$PATH" HATCH_DATA_DIR="$work/hatch" HATCH_CACHE_DIR="$work/hatch-cache"
}

# The slow tests of the page drive Chromium.  Without it they are skipped, so this never fails.
install_chromium() {
  local name
  for name in chromium chromium-browser google-chrome; do
    if command -v "$name"; then return; fi
  done
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && apt-get install -y -qq chromium
  fi
  command -v chromium || echo "There is no Chromium: the tests of the page in a browser are skipped."
}

# Dapr's sidecar is built by Go from the modules of its proxy: minutes of two processors with empty caches, seconds if it
# is there. So it is built at low priority while other steps run.
start_building_dapr() {
  nice -n 10 "$python" packages/aio-dapr/tests/support/dapr_binary.py >"$work/dapr" 2>&1 &
  dapr_build=$!
}

# Waits for that build. The step after it prints what came of it, and builds once more if it has failed.
wait_for_dapr() {
  wait "$dapr_build"
  unset dapr_build
  step "Dapr's sidecar" "$python" packages/aio-dapr/tests/support/dapr_binary.py
}

# Two replicas of an application on Dapr share a Redis.
install_redis() {
  if ! command -v redis-server && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && apt-get install -y -qq redis-server
  fi
  command -v redis-server
}

# Sets `oldest` and `newest` to the ends of the supported range of durabletask.
find_ends_of_upstream() {
  oldest=$(sed -n 's/.*"durabletask==\(.*\)", if = \["oldest"\].*/\1/p' hatch.toml)
  newest=$(hatch run test:python -c 'from importlib.metadata import version; print(version("durabletask"))')
}

# Prints the steps and the totals of all tests; its status is that of the whole run.
finish() {
  printf '\n=== Steps (%d s in all)\n' "$SECONDS"
  printf '%s\n' "${steps[@]}"
  echo
  "$python" scripts/totals.py <"$work/all"
  [ "$failures" -eq 0 ]
}

python=$(find_python)
[ -n "$python" ] || { echo "No Python >= 3.10 with venv found, and none could be installed."; exit 1; }
default=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
echo "Python: $python, $("$python" --version)"
