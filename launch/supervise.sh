#!/usr/bin/env bash
# Runs a training command, and again after a failure that another start can mend.
#
# example: launch/supervise.sh -- python -m xjepa_jax.main --config=configs/ombria.py --workdir=runs/ombria
#
#   --failures N         give up after so many failures at the same step (5)
#   --first-wait S       seconds before the second start, doubled at every failure at the same step (5)
#   --longest-wait S     ... up to this (300)
#   --dry-run            print the command, and run nothing
#
# Not started again after 0 (done), 1 and 2 (an error in words) and 130 (Ctrl-C); nor after SIGTERM, which is passed on.
# The step reached is that of progress.json in the command's --workdir. There the encoder is written last: a command
# that ends with 0 before it is there was stopped and saved, and the status is then 75: the same command goes on.
set -euo pipefail
# shellcheck source=launch/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/commands.sh"

STOPPED=75 # sysexits.h: try again later
failures=5 first_wait=5 longest_wait=300
child="" stopping="" interrupted=""

# The --workdir of the command; nothing for one that does not train.
workdir_of() {
  local found=""
  while (($#)); do
    case $1 in
      --workdir=*) found=${1#*=} ;;
      --workdir) found=${2:-} ;;
      --plan | --help | -h) return ;;
    esac
    shift
  done
  printf '%s' "${found/#\~\//$HOME/}" # as the program itself takes it
}

step_reached() {
  [[ -r $workdir/progress.json ]] || return 0
  sed -n 's/.*"step": *\([0-9]*\).*/\1/p' "$workdir/progress.json"
}

# Starts a command and waits for its end, passing signals on. Its status is in `status`.
start_and_wait() {
  # Job control: a background process would ignore Ctrl-C otherwise.
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  # What came while no child was there.
  [[ -z $stopping ]] || pass_on TERM
  [[ -z $interrupted ]] || pass_on INT
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" || true # a signal ends `wait`, not the child
  done
  status=0
  wait "$child" || status=$?
  child=""
}

pass_on() {
  [[ -z $child ]] || kill "-$1" "$child" 2>/dev/null || true
}

split_arguments "$@"
set -- "${OPTIONS[@]}"
while (($#)); do
  case $1 in
    --help | -h) help_of "$0" && exit ;;
    --dry-run) DRY_RUN=1 && shift ;;
    --failures) needs_value "$@" && check_count "$@" && failures=$2 && shift 2 ;;
    --first-wait) needs_value "$@" && first_wait=$2 && shift 2 ;;
    --longest-wait) needs_value "$@" && longest_wait=$2 && shift 2 ;;
    *) die "unknown option '$1'; the command follows '--'. See --help." ;;
  esac
done
((${#PROGRAM[@]})) || die "no command; it follows '--'. See --help."
[[ $first_wait$longest_wait =~ ^[0-9]+$ ]] || die "--first-wait and --longest-wait are whole seconds."
if [[ $DRY_RUN ]]; then
  run "${PROGRAM[@]}"
  exit
fi

workdir=$(workdir_of "${PROGRAM[@]}")
trap 'stopping=1; pass_on TERM' TERM
trap 'interrupted=1; pass_on INT' INT
trap 'pass_on USR1' USR1 # a profile is wanted; a pause ends

failed=0 failed_at="?"
while true; do
  start_and_wait "${PROGRAM[@]}"
  case $status in
    0)
      [[ -z $workdir || -d $workdir/encoder ]] && exit 0
      say "supervise: stopped before the end of the run; the same command continues"
      exit "$STOPPED"
      ;;
    1 | 2 | 126 | 127 | 130) exit "$status" ;;
  esac
  [[ -z $interrupted ]] || exit 130
  [[ -z $stopping ]] || exit "$STOPPED"
  step=$(step_reached)
  [[ $step == "$failed_at" ]] || failed=0
  failed_at=$step failed=$((failed + 1))
  where=${step:+step $step}
  if ((failed >= failures)); then
    say "supervise: status $status, failure $failed at ${where:-the start}; giving up"
    exit "$status"
  fi
  pause=$((first_wait << (failed - 1)))
  ((pause <= longest_wait)) || pause=$longest_wait
  say "supervise: status $status at ${where:-the start} ($failed of $failures failures there); again in $pause s"
  start_and_wait sleep "$pause"
  [[ -z $interrupted ]] || exit 130
  [[ -z $stopping ]] || exit "$STOPPED"
done
