#!/usr/bin/env bash
# On a worker: a training that goes on when nobody is connected, one at a time.
#
# example: bash xjepa_jax/launch/worker/training.sh start --name try --shared 10.0.0.2:/runs -- --config=configs/ombria.py
#
#   start                begin in the background, with the log in ~/xjepa_jax.run/log
#   again                what was started last, with the same arguments: it goes on from its last checkpoint
#   state                RUNNING, DONE, STOPPED (saved, and to be started again), FAILED and the status, or NONE
#   stop                 SIGTERM: save and end
#   tail                 follow the log
#
#   --name NAME          the run writes to NAME in the shared directory
#   --shared SOURCE      HOST:/EXPORT (NFS), gs://BUCKET (by gcsfuse), or none: this machine's disk
#   -- ARGUMENTS         of python -m xjepa_jax.main
set -euo pipefail
# shellcheck source=launch/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/../commands.sh"

folder=$HOME/xjepa_jax.run
mounted=$HOME/xjepa_jax.shared
name="" shared=""

is_running() {
  [[ -r $folder/pid ]] && [[ $(ps -o args= -p "$(<"$folder/pid")" 2>/dev/null) == *training.sh* ]]
}

mount_shared() {
  mkdir -p "$mounted"
  if mountpoint -q "$mounted"; then return; fi
  case $shared in
    gs://*)
      command -v gcsfuse >/dev/null || die "gcsfuse is not installed here; see Cloud Storage FUSE's documentation."
      # No caching: workers have to see each other's files at once.
      run gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 \
        --metadata-cache-negative-ttl-secs=0 "$(sed 's,^gs://,,; s,/$,,' <<<"$shared")" "$mounted"
      ;;
    *)
      command -v mount.nfs >/dev/null || run sudo apt-get install --quiet --yes nfs-common
      run sudo mount -t nfs "$shared" "$mounted"
      mkdir -p "$mounted/$name" 2>/dev/null || run sudo chmod 1777 "$mounted"
      ;;
  esac
}

check_idle() {
  if is_running; then die "a training is running here (process $(<"$folder/pid")); 'stop' it first."; fi
}

# Starts itself apart from this connection.
start() {
  rm -f "$folder/status"
  setsid nohup bash "$ROOT/launch/worker/training.sh" inside </dev/null >>"$folder/log" 2>&1 &
  echo "$!" >"$folder/pid"
  say "started; its log is $folder/log"
}

# What runs apart: the command that was stored, and its status.
inside() {
  local command status=0
  trap : TERM # the status is still to be written
  mapfile -d '' command <"$folder/command"
  # Newer images of Cloud TPU block the port that JAX would take.
  export JAX_COORDINATOR_PORT=${JAX_COORDINATOR_PORT:-8476}
  cd "$ROOT"
  bash launch/supervise.sh -- "${command[@]}" || status=$?
  echo "$status" >"$folder/status"
}

state() {
  local status=""
  if is_running; then echo RUNNING && return; fi
  [[ -r $folder/status ]] && status=$(<"$folder/status")
  case $status in
    0) echo DONE ;;
    75) echo STOPPED ;;
    "") if [[ -r $folder/command ]]; then echo STOPPED; else echo NONE; fi ;; # the machine was switched off
    *) echo "FAILED $status" ;;
  esac
}

split_arguments "$@"
set -- "${OPTIONS[@]}"
verb=${1:-}
shift || true
while (($#)); do
  case $1 in
    --name) needs_value "$@" && name=$2 && shift 2 ;;
    --shared) needs_value "$@" && shared=$2 && shift 2 ;;
    *) die "unknown option '$1'; see --help." ;;
  esac
done
case $verb in
  --help | -h) help_of "$0" ;;
  start)
    check_idle
    check_name --name "$name" 63
    ((${#PROGRAM[@]})) || die "nothing to train; the arguments of python -m xjepa_jax.main follow '--'."
    if [[ $shared == none ]]; then mounted=$folder/results; else mount_shared; fi
    mkdir -p "$folder"
    printf '%s' "$shared" >"$folder/shared"
    printf '%s\0' "${VENV:-$HOME/xjepa_jax.venv}/bin/python" -m xjepa_jax.main "--workdir=$mounted/$name" \
      "${PROGRAM[@]}" >"$folder/command"
    start
    ;;
  again)
    check_idle
    [[ -r $folder/command ]] || die "nothing was started here before; use 'start'."
    shared=$(<"$folder/shared")
    [[ $shared == none ]] || mount_shared
    start
    ;;
  state) state ;;
  stop) if is_running; then kill -TERM -- "-$(<"$folder/pid")"; else say "no training is running here"; fi ;;
  tail) exec tail -n 100 -F "$folder/log" ;;
  inside) inside ;;
  *) check_choice command "$verb" start again state stop tail ;;
esac
