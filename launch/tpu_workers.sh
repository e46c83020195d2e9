# Sourced by the scripts for Cloud TPU: what is done on the workers, the same for a slice and for many.
# They define `on_workers COMMAND WORKER NODE` and `copy_to_workers FILE`, and set `name` and `shared`.
# shellcheck shell=bash
# shellcheck disable=SC2154

ARCHIVE=build/launch/xjepa_jax.tar.gz
# A run reads its code as long as it lasts.
NOT_RUNNING="if bash xjepa_jax/launch/worker/training.sh state 2>/dev/null | grep -qx RUNNING; then \
echo 'error: a training runs here from the code that would be replaced; stop it first' >&2; exit 1; fi"

# The commit that is checked out goes to every worker: no repository has to be reachable from there.
install_on_workers() {
  local changed
  changed=$(git -C "$ROOT" status --porcelain --untracked-files=no)
  [[ -z $changed ]] || say "note: what is not committed is not installed: $(cut -c 4- <<<"$changed" | tr '\n' ' ')"
  mkdir -p "$ROOT/$(dirname "$ARCHIVE")"
  run git -C "$ROOT" archive --format=tar.gz "--output=$ROOT/$ARCHIVE" HEAD
  copy_to_workers "$ROOT/$ARCHIVE"
  on_workers "$NOT_RUNNING && rm -rf xjepa_jax && mkdir xjepa_jax && tar -xzf $(basename "$ARCHIVE") -C xjepa_jax && \
bash xjepa_jax/launch/worker/install.sh tpu" all all
}

# training_on_workers COMMAND WORKER NODE ARGUMENT...: launch/worker/training.sh over there.
training_on_workers() {
  local command=$1 worker=$2 node=$3
  shift 3
  on_workers "bash xjepa_jax/launch/worker/training.sh $(quoted "$command" "$@")" "$worker" "$node"
}

start_on_workers() {
  ((${#PROGRAM[@]})) || die "nothing to train; the arguments of python -m xjepa_jax.main follow '--'."
  [[ " ${PROGRAM[*]}" != *" --workdir"* ]] || die "--workdir follows from --shared and --name; leave it out."
  [[ $shared ]] || check_shared ""
  training_on_workers start all all --name "$name" --shared "$shared" -- "${PROGRAM[@]}"
}

resume_on_workers() {
  if ((${#PROGRAM[@]})); then start_on_workers; else training_on_workers again all all; fi
}
