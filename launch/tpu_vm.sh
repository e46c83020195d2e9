#!/usr/bin/env bash
# Trains on one Cloud TPU slice: all its workers, with the code that is checked out here.
#
# example, of which only `create` costs:
#   launch/tpu_vm.sh create  --name my-run --zone us-east5-b --accelerator v6e-16
#   launch/tpu_vm.sh install --name my-run --zone us-east5-b
#   launch/tpu_vm.sh run     --name my-run --zone us-east5-b --shared 10.0.0.2:/runs \
#     -- --config=configs/optical_sar.py:base --config.data.simulate=0 \
#     --config.data.directories="('gs://my-bucket/pairs',)"
#   launch/tpu_vm.sh tail    --name my-run --zone us-east5-b
#   launch/tpu_vm.sh --delete --name my-run --zone us-east5-b
#
#   create               make the slice; it is billed from then on until it is deleted
#   install              copy the commit that is checked out to all workers, and install it there
#   run                  start on all workers; it goes on when this machine is switched off
#   tail                 follow the log of a worker
#   resume               start again, from the last checkpoint; with no arguments after -- those of the last run
#   state                what each worker is doing
#   stop                 save and end the training; the slice stays, and costs
#   delete, --delete     delete the slice with its disks; nothing happens if it is not there
#
#   --name NAME          of the slice, and of the run's directory
#   --zone ZONE          with TPUs of that kind
#   --accelerator TYPE   for create, such as v6e-16, v5p-8, v5litepod-16 or v4-8
#   --version VERSION    for create: the runtime version; that which belongs to the accelerator if none is given
#   --spot               for create: cheaper, and taken away at any time
#   --with FLAG          for create: another flag of gcloud's, such as --with=--network=my-network
#   --shared SOURCE      for run: where the run writes, seen by all workers: HOST:/EXPORT (NFS), gs://BUCKET (gcsfuse), or
#                        none: the disk of a single worker, which is deleted with it. Data are read from gs:// as they are
#   --worker N           for tail: which worker (0)
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

verb="" name="" zone="" accelerator="" version="" shared="" worker=0
create_flags=() everywhere=()

tpu() {
  run gcloud compute tpus tpu-vm "$@" "--zone=$zone" "${everywhere[@]}"
}

on_workers() {
  tpu ssh "$name" "--worker=$2" "--command=$1"
}

copy_to_workers() {
  tpu scp "$1" "$name:$(basename "$1")" --worker=all
}

create() {
  check_accelerator "$accelerator"
  [[ $version ]] || version=$(runtime_version "$accelerator")
  check_version "$version" "$accelerator"
  say "This costs: a $accelerator in $zone is billed from its creation until it is deleted with" \
    "'$0 --delete --name $name --zone $zone'."
  tpu create "$name" "--accelerator-type=$accelerator" "--version=$version" "${create_flags[@]}"
}

# Asks first whether it is there: that it cannot be deleted must not look as if it were not there.
delete() {
  local there
  there=$(tpu list '--format=value(name.basename())')
  if [[ $DRY_RUN ]]; then
    printf '%s\n' "$there"
  elif ! grep -qxF -- "$name" <<<"$there"; then
    say "there is no '$name' in $zone; nothing to delete"
    return
  fi
  tpu delete "$name" --quiet
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
    --version) needs_value "$@" && version=$2 && shift 2 ;;
    --shared) needs_value "$@" && shared=$2 && shift 2 ;;
    --worker) needs_value "$@" && worker=$2 && shift 2 ;;
    --project) needs_value "$@" && everywhere+=("--project=$2") && shift 2 ;;
    --spot) create_flags+=(--spot) && shift ;;
    --with) create_flags+=("${2:?--with needs a flag}") && shift 2 ;;
    -*) die "unknown option '$1'; see --help. What is for the training follows '--'." ;;
    *) verb=$1 && shift ;;
  esac
done
[[ $verb ]] || die "what is to be done? See --help."
check_choice command "$verb" create install run tail resume state stop delete
check_name --name "$name" 60
check_zone "$zone"
[[ -z $shared ]] || check_shared "$shared"
[[ $worker =~ ^([0-9]+|all)$ ]] || die "--worker is '$worker'; expected a number from 0, or all."
needs_program gcloud "the Google Cloud CLI"
case $verb in
  create) create ;;
  install) install_on_workers ;;
  run) start_on_workers ;;
  resume) resume_on_workers ;;
  tail) training_on_workers tail "$worker" 0 ;;
  state) training_on_workers state all 0 ;;
  stop) training_on_workers stop all 0 ;;
  delete) delete ;;
esac
