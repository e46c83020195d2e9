# Sourced: what Cloud TPU calls its zones, accelerators and runtime versions.
# From the pages "TPU versions" and "TPU software versions" of Cloud TPU's documentation.
# shellcheck shell=bash

ACCELERATORS=(
  v2-{8,32,128,256,512} v3-{8,32,64,128,256,512,1024,2048}
  v4-{8,16,32,64,128,256,512,1024,2048,4096} v5p-{8,16,32,64,128,256,512,1024,2048,4096,8192,12288}
  v5litepod-{1,4,8,16,32,64,128,256} v6e-{1,4,8,16,32,64,128,256}
)

# check_accelerator TYPE. v4 and v5p come in many more shapes: any multiple of 8 cores.
check_accelerator() {
  local type=$1 cores=${1#*-}
  [[ -n $type ]] || die "--accelerator is missing, for example --accelerator v6e-16."
  [[ $type =~ ^v5(e|lite)-[0-9]+$ ]] && die "unknown accelerator '$type'; Cloud TPU calls it 'v5litepod-$cores'."
  [[ $type =~ ^v4-[1-9][0-9]*$ ]] && ((cores % 8 == 0 && cores <= 8192)) && return
  [[ $type =~ ^v5p-[1-9][0-9]*$ ]] && ((cores % 8 == 0 && cores <= 12288)) && return
  check_choice accelerator "$type" "${ACCELERATORS[@]}"
}

# The runtime version that belongs to an accelerator.
runtime_version() {
  case $1 in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

# check_version VERSION ACCELERATOR: a version for another TPU boots, and then finds no chips.
check_version() {
  local fitting
  fitting=$(runtime_version "$2")
  check_choice "runtime version" "$1" v2-alpha-tpuv6e v2-alpha-tpuv5 v2-alpha-tpuv5-lite tpu-ubuntu2204-base
  [[ $1 == "$fitting" ]] || die "runtime version '$1' is not for $2; '$fitting' is."
}

check_zone() {
  [[ -n $1 ]] || die "--zone is missing, for example --zone us-east5-b."
  [[ $1 =~ ^[a-z]+-[a-z]+[0-9]+$ ]] && die "'$1' is a region; --zone takes a zone of it, such as '$1-b'."
  [[ $1 =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || die "--zone '$1' is no zone; expected one such as 'us-east5-b'."
}

# check_shared SOURCE: what the directory of a run is to be on.
check_shared() {
  [[ $1 == none || $1 =~ ^gs://[a-z0-9][-a-z0-9_.]*[a-z0-9]/?$ || $1 =~ ^[A-Za-z0-9.-]+:/[A-Za-z0-9_./-]+$ ]] && return
  die "--shared '$1': a run writes into a directory that all workers see. Give HOST:/EXPORT (a Filestore or other NFS" \
    "share), gs://BUCKET (mounted with gcsfuse; best one with a hierarchical namespace), or, for a single worker, none."
}
