# shellcheck shell=bash
# Steps of a longer run: each has a name, a time limit and a log, and is reported with its seconds.
# Sourced by scripts/test, scripts/prove and .ci/run after `set -euo pipefail`.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT" || exit
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $CARGO_TARGET_DIR = /* ]] || CARGO_TARGET_DIR=$ROOT/$CARGO_TARGET_DIR
export CARGO_TARGET_DIR
export PYTHONDONTWRITEBYTECODE=1
# What only helps the next build of the same code takes space and time in a run from nothing.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
export CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-0}
LOGS=$CARGO_TARGET_DIR/logs
mkdir -p "$LOGS"

# need_space GB: ends the run where the target folder with the space beside it is smaller. On a full disk
# compilers fail with errors that name everything but the disk.
need_space() {
    local free_kb used_kb
    free_kb=$(df --output=avail -k "$CARGO_TARGET_DIR" | tail -n 1)
    used_kb=$(du -sk "$CARGO_TARGET_DIR" | cut -f 1)
    echo "disk: $((free_kb >> 20)) GB are free for $CARGO_TARGET_DIR, which has $((used_kb >> 20)) GB"
    ((free_kb + used_kb >= $1 << 20 && free_kb >= 1 << 20)) || {
        echo "the disk is too small: a whole run takes $1 GB in $CARGO_TARGET_DIR and leaves 1 GB free;" \
            "free some space, or name a folder on another disk in CARGO_TARGET_DIR" >&2
        exit 1
    }
}

step_child=
step_report=()
steps_failed=0

stop_step() {
    if [[ -n $step_child ]]; then
        kill -TERM "$step_child" 2>/dev/null || true # `timeout` hands it on to all it started
        wait "$step_child" 2>/dev/null || true
    fi
}
trap stop_step EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# step NAME SECONDS_MAX COMMAND…: runs it without standard input, shows what it says and keeps that in
# $LOGS/NAME.log. Returns the command's exit code; 124 means that its time was up.
step() {
    local name=$1 limit=$2 status=0 began=$SECONDS screen verdict
    shift 2
    echo "==> $name"
    exec 3> >(exec tee "$LOGS/$name.log")
    screen=$!
    timeout --kill-after=20 "$limit" "$@" </dev/null >&3 2>&1 3>&- &
    step_child=$!
    exec 3>&-
    wait "$step_child" || status=$?
    step_child=
    for _ in {1..50}; do # the last lines may still be on their way
        kill -0 "$screen" 2>/dev/null || break
        sleep 0.1
    done
    case $status in
    0) verdict=ok ;;
    124 | 137) verdict="FAILED (not done within $limit s)" ;;
    *) verdict="FAILED (exit code $status)" ;;
    esac
    ((status == 0)) || steps_failed=$((steps_failed + 1))
    step_report+=("$(printf '%-22s %5d s  %s' "$name" $((SECONDS - began)) "$verdict")")
    echo "<== $name: $verdict, $((SECONDS - began)) s"
    return "$status"
}

# note_step NAME TEXT: a line of the report for what was not run.
note_step() {
    step_report+=("$(printf '%-22s %5s    %s' "$1" - "$2")")
    echo "<== $1: $2"
}

print_report() {
    printf '\n'
    printf '%s\n' "${step_report[@]}"
}

# need COMMAND PACKAGE: installs Debian's PACKAGE where COMMAND fails.
need() {
    local sudo=()
    eval "$1" >/dev/null 2>&1 && return
    if ! command -v apt-get >/dev/null; then
        echo "please install what Debian calls $2" >&2
        return 1
    fi
    ((EUID == 0)) || sudo=(sudo -n)
    echo "installing $2"
    "${sudo[@]}" timeout 300 apt-get update -qq >/dev/null || true # an old list may do
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" timeout 600 apt-get install -qq -y --no-install-recommends \
        "$2" </dev/null >/dev/null || {
        echo "cannot install $2; please do, and start again" >&2
        return 1
    }
}
