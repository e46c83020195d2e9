#!/usr/bin/env bash
# Trains on one or several Cloud TPU slices by a queued resource: waits for them, and asks again after a preemption.
#
# example, of which `create` and `watch` cost:
#   launch/tpu_queued_resources.sh create --name my-run --zone us-east5-b --accelerator v6e-16 --slices 2 --spot
#   launch/tpu_queued_resources.sh watch  --name my-run --zone us-east5-b --accelerator v6e-16 --slices 2 --spot \
#     --shared 10.0.0.2:/runs -- --config=configs/optical_sar.py:large \
#     --config.data.simulate=0 --config.data.directories="('gs://my-bucket/pairs',)"
#   launch/tpu_queued_resources.sh --delete --name my-run --zone us-east5-b
#
#   create               ask for the slices; they are billed from when they are there until they are deleted
#   install, run, tail, resume, stop    as launch/tpu_vm.sh
#   state                of the request, and what each worker is doing
#   watch                install and start as soon as the slices are there, start again what was stopped, and after a
#                        preemption delete and ask for them again; until the run is done. Options: create's and run's
#   delete, --delete     delete the request and its slices; nothing happens if it is not there
#
#   --name NAME          of the request, and of the run's directory; slices are NAME, or NAME-0, NAME-1, ...
#   --zone ZONE          with TPUs of that kind
#   --accelerator TYPE   of each slice, such as v6e-16, v5p-8, v5litepod-16 or v4-8
#   --slices N           how many (1)
#   --version VERSION    the runtime version; that which belongs to the accelerator if none is given
#   --spot               cheaper, and taken away at any time
#   --with FLAG          for create: another flag of gcloud's, such as --with=--network=my-network
#   --shared SOURCE      for run: where the run writes, seen by all workers: HOST:/EXPORT (NFS) or gs://BUCKET (gcsfuse)
#   --worker N, --node N for tail: which worker (0) of which slice (0)
#   --poll S             for watch: seconds between two looks (60)
#   --recreate N         for watch: how often to ask again at most (20)
#   --then-delete        for watch: delete the slices when the run is done
#   --project PROJECT    if it is not gcloud's own setting
#   --dry-run            print the commands, and run none
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/commands.sh
source "$here/commands.sh"
# shellcheck source=launch/tpu_names.sh
source "$here/tpu_names.sh"
# shellcheck source=launch/tpu_workers.sh
source "$here/tpu_workers.sh"

verb="" name="" zone="" accelerator="" slices=1 version="" shared="" worker=0 node=0
# New slices have no launch/ yet.
ASK_STATE="bash xjepa_jax/launch/worker/training.sh state 2>/dev/null || echo NONE"
poll=60 recreate=20 then_delete=""
create_flags=() everywhere=()

queued() {
  run gcloud compute tpus queued-resources "$@" "--zone=$zone" "${everywhere[@]}"
}

on_workers() {
  queued ssh "$name" "--node=$3" "--worker=$2" "--command=$1"
}

copy_to_workers() {
  queued scp "$1" "$name:$(basename "$1")" --node=all --worker=all
}

check_slices() {
  check_accelerator "$accelerator"
  check_count --slices "$slices"
  [[ $version ]] || version=$(runtime_version "$accelerator")
  check_version "$version" "$accelerator"
}

create() {
  local nodes=("--node-id=$name")
  ((slices == 1)) || nodes=("--node-count=$slices" "--node-prefix=$name")
  say "This costs: $slices x $accelerator in $zone, billed from when they are there until they are deleted with" \
    "'$0 --delete --name $name --zone $zone'."
  queued create "$name" "--accelerator-type=$accelerator" "--runtime-version=$version" "${nodes[@]}" \
    "${create_flags[@]}"
}

# All requests of the zone: a name and a state a line.
requests() {
  queued list '--format=value(name.basename(),state.state)'
}

# The state of this request; nothing if it is not there. Fails if that cannot be told.
request_state() {
  local listed
  listed=$(requests) || return 1
  awk -v name="$name" '$1 == name { print $2 }' <<<"$listed"
}

delete() {
  local found
  if [[ $DRY_RUN ]]; then
    requests
  else
    found=$(request_state) || die "it cannot be told whether '$name' is there; gcloud says why above."
    if [[ -z $found ]]; then
      say "there is no '$name' in $zone; nothing to delete"
      return
    fi
  fi
  queued delete "$name" --force --quiet
}

# One attempt. What fails is tried again at the next look, by the state that it left.
ask_again() {
  ((recreate > 0)) || die "'$name' was taken away too often; see --recreate."
  taken=1
  if [[ $1 ]]; then
    say "'$name' was taken away ($1); asking for it again, $((recreate - 1)) times are left"
    queued delete "$name" --force --quiet || { say "not deleted; trying again" && return; }
  fi
  create || { say "not asked for; trying again" && return; }
  taken="" recreate=$((recreate - 1))
}

# What the first worker is doing; UNKNOWN if it cannot be asked just now.
training_state() {
  local answer
  answer=$(on_workers "$ASK_STATE" 0 0) || answer=UNKNOWN
  tail -n 1 <<<"$answer"
}

# Looks at what goes on at an active request, and does what it needs. Returns 1 when the run is done.
attend() {
  local training
  training=$(training_state)
  case $training in
    RUNNING) ;;
    NONE) { install_on_workers && start_on_workers; } || say "not started; trying again" ;;
    STOPPED) training_on_workers again all all || say "not all workers were started again; looking again" ;;
    DONE)
      say "the run '$name' is done"
      return 1
      ;;
    FAILED*)
      die "the training ended ($training); look with '$0 tail', mend it, and 'resume'. The slices are there, and cost."
      ;;
    *) say "the workers cannot be asked: ${training:-no answer}" ;;
  esac
}

watch() {
  local request taken=""
  say "This costs: when '$name' is taken away, it is asked for again, at most $recreate times."
  while true; do
    request=$(request_state) || request=UNKNOWN
    case $request in
      "") if [[ $taken ]]; then ask_again ""; else die "there is no '$name' in $zone; 'create' it first."; fi ;;
      ACTIVE) attend || break ;;
      SUSPENDED | FAILED) ask_again "$request" ;;
      *) say "'$name' is $request" ;;
    esac
    sleep "$poll"
  done
  if [[ $then_delete ]]; then delete; else say "The slices are still there, and cost; --delete deletes them."; fi
}

# What watch would do for a request that becomes active, is preempted once, and is done.
watch_dry() {
  requests
  on_workers "$ASK_STATE" 0 0
  install_on_workers
  start_on_workers
  delete
  create
}

split_arguments "$@"
set -- "${OPTIONS[@]}"
while (($#)); do
  case $1 in
    --help | -h) help_of "$0" && exit ;;
    --dry-run) DRY_RUN=1 && shift ;;
    --delete) verb=delete && shift ;;
    --name) needs_value "$@" && name=$2 && shift 2 ;;
    --zone) needs_value "$@" && zone=$2 && shift 2 ;;
    --accelerator) needs_value "$@" && accelerator=$2 && shift 2 ;;
    --slices) needs_value "$@" && slices=$2 && shift 2 ;;
    --version) needs_value "$@" && version=$2 && shift 2 ;;
    --shared) needs_value "$@" && shared=$2 && shift 2 ;;
    --worker) needs_value "$@" && worker=$2 && shift 2 ;;
    --node) needs_value "$@" && node=$2 && shift 2 ;;
    --poll) needs_value "$@" && poll=$2 && shift 2 ;;
    --recreate) needs_value "$@" && recreate=$2 && shift 2 ;;
    --then-delete) then_delete=1 && shift ;;
    --project) needs_value "$@" && everywhere+=("--project=$2") && shift 2 ;;
    --spot) create_flags+=(--spot) && shift ;;
    --with) create_flags+=("${2:?--with needs a flag}") && shift 2 ;;
    -*) die "unknown option '$1'; see --help. What is for the training follows '--'." ;;
    *) verb=$1 && shift ;;
  esac
done
[[ $verb ]] || die "what is to be done? See --help."
check_choice command "$verb" create install run tail resume state stop watch delete
check_name --name "$name" 58
check_zone "$zone"
[[ -z $shared ]] || check_shared "$shared"
[[ $shared != none ]] || die "--shared none is for a single worker; several need a directory that all see."
[[ $worker =~ ^([0-9]+|all)$ && $node =~ ^([0-9]+|all)$ ]] || die "--worker and --node take a number from 0, or all."
[[ $poll =~ ^[0-9]+$ && $recreate =~ ^[0-9]+$ ]] || die "--poll and --recreate take whole numbers."
needs_program gcloud "the Google Cloud CLI"
case $verb in
  create) check_slices && create ;;
  install) install_on_workers ;;
  run) start_on_workers ;;
  resume) resume_on_workers ;;
  tail) training_on_workers tail "$worker" "$node" ;;
  state) requests && training_on_workers state all all ;;
  stop) training_on_workers stop all all ;;
  watch)
    check_slices
    [[ $shared ]] || check_shared ""
    if [[ $DRY_RUN ]]; then watch_dry; else watch; fi
    ;;
  delete) delete ;;
esac
