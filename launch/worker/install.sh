#!/usr/bin/env bash
# On a worker: makes the virtual environment and installs what is beside this script, in the versions that were tested.
#
# example: bash xjepa_jax/launch/worker/install.sh tpu
#
#   tpu | gpu | cpu      which devices JAX is for
#   --dry-run            print the commands, and run none
#
# The environment is VENV (~/xjepa_jax.venv): an installation over an earlier one takes seconds.
set -euo pipefail
# shellcheck source=launch/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/../commands.sh"

venv=${VENV:-$HOME/xjepa_jax.venv}
devices=""

# A Python that is new enough and can make environments, which Debian's and Ubuntu's cannot without python3-venv.
suitable_python() {
  local python
  for python in python3.13 python3.12 python3.11 python3; do
    if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
}

make_environment() {
  local python
  python=$(suitable_python)
  if [[ $python ]]; then
    run "$python" -m venv "$venv"
    return
  fi
  # TPU images come with Python 3.10; uv brings one of its own.
  say "no Python 3.11 or newer here that can make an environment; uv brings 3.12"
  run python3 -m pip install --quiet --user --break-system-packages uv 2>/dev/null ||
    run python3 -m pip install --quiet --user uv
  run python3 -m uv venv --quiet --seed --python 3.12 "$venv"
}

constraints() {
  local program='import sys; print("constraints-py311.txt" if sys.version_info < (3, 12) else "constraints.txt")'
  if [[ -x $venv/bin/python ]]; then "$venv/bin/python" -c "$program"; else echo constraints.txt; fi
}

while (($#)); do
  case $1 in
    --help | -h) help_of "$0" && exit ;;
    --dry-run) DRY_RUN=1 ;;
    -*) die "unknown option '$1'; see --help." ;;
    *) devices=$1 ;;
  esac
  shift
done
case $devices in
  tpu | gpu) extras="[$devices,gcs]" ;;
  cpu) extras="[gcs]" ;;
  *) check_choice devices "$devices" tpu gpu cpu ;;
esac

cd "$ROOT"
[[ -x $venv/bin/python ]] || make_environment
run "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$(constraints)" \
  --editable ".$extras"
