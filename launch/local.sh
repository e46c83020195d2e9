#!/usr/bin/env bash
# Starts N processes of one run on this machine, each with the CPU, to try what runs on many hosts.
#
# example: launch/local.sh 2 --name try -- --config=configs/optical_sar.py --workdir=runs/try
#
#   N                    how many processes
#   --name NAME          by which --delete finds the run; its --workdir is runs/NAME if none is given
#   --port P             of process 0; a free one if none is given
#   --grace S            seconds that the others have to end by themselves after one has failed (90)
#   --delete             stop the run NAME: all its processes save and end; what was written stays
#   --dry-run            print the commands, and run none
#   -- ARGUMENTS         of python -m xjepa_jax.main
#
# PYTHON names the interpreter (.venv's if it is there), JAX_PLATFORMS the devices (cpu). Lines begin with the number of
# their process. SIGTERM and Ctrl-C are passed on to all. The status is the worst of the processes'.
set -euo pipefail
# shellcheck source=launch/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/commands.sh"

count="" name="" port="" grace=90 delete=""
python=${PYTHON:-$([[ -x $ROOT/.venv/bin/python ]] && echo "$ROOT/.venv/bin/python" || echo python3)}
notes=${TMPDIR:-/tmp}/xjepa_jax-$UID # the numbers of the processes of named runs
children=() printers=()

# Sends a signal to all processes that are left.
signal_all() {
  local child
  for child in "${children[@]}"; do
    kill "-$1" "$child" 2>/dev/null || true
  done
}

stop_named() {
  local pid=""
  [[ -r $notes/$name ]] && pid=$(<"$notes/$name")
  if [[ -z $pid ]] || [[ $(ps -o args= -p "$pid" 2>/dev/null) != *local.sh* ]]; then
    say "no run '$name' is going on here"
    return
  fi
  run kill -TERM "$pid"
}

free_port() {
  "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Starts process I of the run; its lines get its number.
start() {
  local index=$1 output
  # The printer outlives Ctrl-C, or what the processes say last would be lost.
  exec {output}> >(trap '' INT TERM && exec sed -u "s/^/[$index] /")
  printers+=("$!")
  set -m # job control, or a background process would ignore Ctrl-C
  "${command[@]}" "--process=$index" </dev/null >&"$output" 2>&1 &
  children+=("$!")
  set +m
  exec {output}>&-
}

# Waits for all. After the first failure the others get a while, then SIGTERM, then SIGKILL.
wait_for_all() {
  local index child status ended=() worst=0 until="" ending="" # the next signal, once one was sent
  while ((${#ended[@]} < ${#children[@]})); do
    for index in "${!children[@]}"; do
      child=${children[index]}
      if [[ ${ended[index]:-} ]] || kill -0 "$child" 2>/dev/null; then continue; fi
      status=0
      wait "$child" || status=$?
      ended[index]=yes
      ((status == 0)) || [[ $until ]] || until=$((SECONDS + grace))
      [[ $ending ]] || ((status <= worst)) || worst=$status
    done
    if [[ $until ]] && ((SECONDS >= until)); then
      signal_all "${ending:-TERM}"
      ending=KILL until=$((SECONDS + 10))
    fi
    sleep 0.1
  done
  return "$worst"
}

split_arguments "$@"
set -- "${OPTIONS[@]}"
while (($#)); do
  case $1 in
    --help | -h) help_of "$0" && exit ;;
    --dry-run) DRY_RUN=1 && shift ;;
    --delete) delete=1 && shift ;;
    --name) needs_value "$@" && name=$2 && shift 2 ;;
    --port) needs_value "$@" && check_count "$@" && port=$2 && shift 2 ;;
    --grace) needs_value "$@" && check_count "$@" && grace=$2 && shift 2 ;;
    -*) die "unknown option '$1'; see --help. What is for the training follows '--'." ;;
    *) count=$1 && shift ;;
  esac
done
[[ -z $name && -z $delete ]] || check_name --name "$name" 63
if [[ $delete ]]; then
  stop_named
  exit
fi
[[ $count ]] || die "how many processes? For example: launch/local.sh 2 -- --config=configs/optical_sar.py"
check_count N "$count"
((count <= 64)) || die "N is $count; more than 64 processes are not for one machine."
[[ -z $name || " ${PROGRAM[*]}" == *" --workdir"* ]] || PROGRAM+=("--workdir=runs/$name")
if [[ -z $port ]]; then
  if [[ $DRY_RUN ]]; then port=8476; else port=$(free_port); fi
fi
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
command=("$python" -m xjepa_jax.main "${PROGRAM[@]}" "--coordinator=127.0.0.1:$port" "--processes=$count")

if [[ $DRY_RUN ]]; then
  for ((index = 0; index < count; index++)); do
    run "${command[@]}" "--process=$index"
  done
  exit
fi

cd "$ROOT"
if [[ $name ]]; then
  mkdir -p "$notes"
  echo $$ >"$notes/$name"
  trap 'rm -f "$notes/$name"' EXIT
fi
trap 'signal_all TERM' TERM
trap 'signal_all INT' INT
trap 'signal_all USR1' USR1 # a profile is wanted
for ((index = 0; index < count; index++)); do
  start "$index"
done
status=0
wait_for_all || status=$?
for printer in "${printers[@]}"; do
  while kill -0 "$printer" 2>/dev/null; do sleep 0.05; done
done
exit "$status"
