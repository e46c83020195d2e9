#!/usr/bin/env bash
# Trains on Google Kubernetes Engine: a JobSet on TPU slices, or on nodes with GPUs, that are in the cluster.
#
# example, of which `create` costs where the cluster makes nodes by itself:
#   launch/gke/train.sh image  --devices tpu --image us-docker.pkg.dev/my-project/my-images/xjepa_jax:1
#   launch/gke/train.sh create --name my-run --devices tpu --accelerator tpu-v6e-slice --topology 4x4 --slices 2 \
#     --image us-docker.pkg.dev/my-project/my-images/xjepa_jax:1 --claim my-share -- --config=configs/optical_sar.py:base \
#     --config.data.simulate=0 --config.data.directories="('gs://my-bucket/pairs',)"
#   launch/gke/train.sh tail   --name my-run
#   launch/gke/train.sh --delete --name my-run
#
#   image                build the image from what is here, and push it
#   create               start the run; its directory is /shared/NAME. What stopped goes on after --delete and create
#   tail                 follow the log of process 0
#   state                of the JobSet and its pods
#   delete, --delete     delete the JobSet; what was written stays. Nothing happens if it is not there
#
#   --name NAME          of the JobSet, and of the run's directory
#   --devices tpu|gpu    which manifest (launch/gke/tpu.yaml, gpu.yaml) and which JAX
#   --accelerator TYPE   the node's label: tpu-v4-podslice, tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice; or
#                        nvidia-l4, nvidia-h100-80gb and so on
#   --topology AxB       for TPUs: of a slice, such as 4x4; AxBxC for v4 and v5p
#   --slices N           for TPUs: how many (1)
#   --nodes N            for GPUs: how many (1)
#   --chips N            chips or GPUs of a node (4 TPU chips, or those of a smaller topology; 8 GPUs)
#   --image IMAGE        with a tag or a digest
#   --claim CLAIM        a PersistentVolumeClaim that all pods can write (ReadWriteMany), mounted at /shared
#   --namespace NS       if it is not kubectl's own setting
#   --dry-run            print the manifest and the commands, and run none
#
# The cluster needs JobSet: see its installation page. Nodes are spot or not as their node pool is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/commands.sh
source "$here/../commands.sh"

TPUS=(tpu-v4-podslice tpu-v5-lite-podslice tpu-v5p-slice tpu-v6e-slice)
GPUS=(
  nvidia-tesla-t4 nvidia-tesla-v100 nvidia-l4 nvidia-tesla-a100 nvidia-a100-80gb nvidia-h100-80gb nvidia-h100-mega-80gb
  nvidia-h200-141gb nvidia-b200 nvidia-gb200
)
verb="" name="" devices="" accelerator="" topology="" slices=1 nodes=1 chips="" image="" claim="" namespace=()

check_image() {
  [[ $image ]] || die "--image is missing; 'image' builds one."
  [[ $image =~ ^[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$ && $image != *:latest ]] ||
    die "--image '$image' has no version; end it with :TAG, other than latest, or @sha256:DIGEST: all pods have to run" \
      "the same."
}

# How many hosts a slice has: its chips by those of a host.
count_tpu_hosts() {
  local product=1 side sides=2
  check_choice accelerator "$accelerator" "${TPUS[@]}"
  [[ $accelerator != tpu-v4-podslice && $accelerator != tpu-v5p-slice ]] || sides=3
  [[ $topology =~ ^[1-9][0-9]?(x[1-9][0-9]?){$((sides - 1))}$ ]] ||
    die "--topology '$topology': $accelerator takes $sides sides, such as $([[ $sides == 2 ]] && echo 4x4 || echo 2x2x4)."
  for side in ${topology//x/ }; do
    product=$((product * side))
  done
  [[ $chips ]] || chips=$((product < 4 ? product : 4))
  check_count --chips "$chips"
  ((product % chips == 0)) || die "$topology has $product chips, which are no multiple of --chips $chips."
  hosts=$((product / chips))
}

# Words as YAML takes them: a JSON list.
json_list() {
  local word list=""
  for word in "$@"; do
    word=${word//\\/\\\\}
    word=${word//\"/\\\"}
    list+=", \"$word\""
  done
  printf '[%s]' "${list:2}"
}

# put PLACE VALUE: into the manifest.
put() {
  manifest=${manifest//"@$1@"/"$2"}
}

create() {
  local manifest hosts=$nodes
  check_image
  check_name --claim "$claim" 63
  ((${#PROGRAM[@]})) || die "nothing to train; the arguments of python -m xjepa_jax.main follow '--'."
  [[ " ${PROGRAM[*]}" != *" --workdir"* ]] || die "--workdir follows from --name; leave it out."
  if [[ $devices == tpu ]]; then
    count_tpu_hosts
  else
    check_choice accelerator "$accelerator" "${GPUS[@]}"
    [[ -z $topology ]] || die "--topology is for TPUs."
    chips=${chips:-8}
  fi
  check_count --chips "$chips"
  manifest=$(<"$here/$devices.yaml")
  # The arguments last, for they may hold an @.
  put HOSTS "$hosts"
  put SLICES "$slices"
  put CHIPS "$chips"
  put ACCELERATOR "$accelerator"
  put TOPOLOGY "$topology"
  put CLAIM "$claim"
  put NAME "$name"
  put IMAGE "$image"
  # Once a pod: the JobSet starts all again together.
  put ARGUMENTS "$(json_list --failures 1 -- python -m xjepa_jax.main "--workdir=/shared/$name" "${PROGRAM[@]}")"
  [[ ! $DRY_RUN ]] || printf '%s\n' "$manifest" ---
  say "This costs, where the cluster makes nodes for it: $((hosts * slices)) nodes with $chips x $accelerator, until it" \
    "ends or is deleted with '$0 --delete --name $name'."
  run kubectl create "${namespace[@]}" --filename=- <<<"$manifest"
}

build_image() {
  check_image
  run docker build "--file=$here/Dockerfile" "--build-arg=DEVICES=$devices" "--tag=$image" "$ROOT"
  run docker push "$image"
}

split_arguments "$@"
set -- "${OPTIONS[@]}"
while (($#)); do
  case $1 in
    --help | -h) help_of "$0" && exit ;;
    --dry-run) DRY_RUN=1 && shift ;;
    --delete) verb=delete && shift ;;
    --name) needs_value "$@" && name=$2 && shift 2 ;;
    --devices) needs_value "$@" && devices=$2 && shift 2 ;;
    --accelerator) needs_value "$@" && accelerator=$2 && shift 2 ;;
    --topology) needs_value "$@" && topology=$2 && shift 2 ;;
    --slices) needs_value "$@" && check_count "$@" && slices=$2 && shift 2 ;;
    --nodes) needs_value "$@" && check_count "$@" && nodes=$2 && shift 2 ;;
    --chips) needs_value "$@" && check_count "$@" && chips=$2 && shift 2 ;;
    --image) needs_value "$@" && image=$2 && shift 2 ;;
    --claim) needs_value "$@" && claim=$2 && shift 2 ;;
    --namespace) needs_value "$@" && namespace=("--namespace=$2") && shift 2 ;;
    -*) die "unknown option '$1'; see --help. What is for the training follows '--'." ;;
    *) verb=$1 && shift ;;
  esac
done
[[ $verb ]] || die "what is to be done? See --help."
check_choice command "$verb" image create tail state delete
# Pods are called NAME-slice-0-0 and the like, in 63 characters.
[[ $verb == image ]] || check_name --name "$name" 40
[[ $verb != image && $verb != create ]] || check_choice devices "$devices" tpu gpu
if [[ $verb == image ]]; then
  needs_program docker "Docker, with buildx"
else
  needs_program kubectl "Kubernetes' command line"
fi
first="jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
case $verb in
  image) build_image ;;
  create) create ;;
  tail) run kubectl logs "${namespace[@]}" "--selector=$first" --tail=100 --follow ;;
  state) run kubectl get "${namespace[@]}" jobsets,pods "--selector=jobset.sigs.k8s.io/jobset-name=$name" ;;
  delete) run kubectl delete "${namespace[@]}" jobset "$name" --ignore-not-found ;;
esac
