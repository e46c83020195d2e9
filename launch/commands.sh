# Sourced by the scripts of this folder: options, what is run or only printed, names that are checked.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the scripts read ROOT and PROGRAM

DRY_RUN="" # not empty: commands are printed, one a line, and not run
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OPTIONS=()
PROGRAM=()

say() {
  printf '%s\n' "$*" >&2
}

die() {
  say "error: $*"
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || die "bash is $BASH_VERSION; 4.4 or newer is needed."

# The comment at the head of a script, which is its help.
help_of() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$1"
}

# Splits arguments at "--": OPTIONS, with --key=value as two words, and PROGRAM.
split_arguments() {
  OPTIONS=() PROGRAM=()
  while (($#)); do
    case $1 in
      --)
        PROGRAM=("${@:2}")
        return
        ;;
      --*=*) OPTIONS+=("${1%%=*}" "${1#*=}") ;;
      *) OPTIONS+=("$1") ;;
    esac
    shift
  done
}

# Refuses an option without its value: needs_value "$@"
needs_value() {
  (($# > 1)) && [[ -n $2 && $2 != --[a-z]* ]] || die "$1 needs a value; see --help."
}

# Words as a shell reads them back.
quoted() {
  local word line=""
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  printf '%s' "${line% }"
}

# Runs a command and says which, or only prints it.
run() {
  if [[ $DRY_RUN ]]; then
    printf '%s\n' "$(quoted "$@")"
  else
    say "+ $(quoted "$@")"
    "$@"
  fi
}

# Refuses to go on without a program. A dry run needs none.
needs_program() {
  [[ $DRY_RUN ]] || command -v "$1" >/dev/null || die "$1 is not installed ($2)."
}

# check_name OPTION NAME LONGEST: the rule of Compute Engine and of Kubernetes (RFC 1035).
check_name() {
  local option=$1 name=$2 longest=$3 better
  [[ -n $name ]] || die "$option is missing; see --help."
  [[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ && ${#name} -le $longest ]] && return
  better=$(tr '[:upper:]' '[:lower:]' <<<"$name" | sed -E 's/[^a-z0-9]+/-/g; s/^[^a-z]+//' | cut -c "-$longest" |
    sed -E 's/-+$//')
  die "$option '$name' is no name: a lowercase letter, then lowercase letters, digits and hyphens, no hyphen at the" \
    "end, at most $longest characters; for example '${better:-run-1}'."
}

# check_count OPTION NUMBER: a whole number from 1.
check_count() {
  [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || die "$1 is '$2'; expected a whole number from 1."
}

# check_choice WHAT WORD CHOICE...: refuses what is no choice, with the nearest that is.
check_choice() {
  local what=$1 word=$2 choice
  for choice in "${@:3}"; do
    [[ $choice == "$word" ]] && return
  done
  die "unknown $what '$word'; did you mean '$(nearest "$word" "${@:3}")'? Known: ${*:3}."
}

# The choice that takes the fewest edits: nearest WORD CHOICE...
nearest() {
  local word=$1 choice best="" least=1000 row above left i j cost
  for choice in "${@:2}"; do
    for ((row = 0; row <= ${#choice}; row++)); do above[row]=$row; done
    for ((i = 1; i <= ${#word}; i++)); do
      left=("$i")
      for ((j = 1; j <= ${#choice}; j++)); do
        [[ ${word:i-1:1} == "${choice:j-1:1}" ]] && cost=0 || cost=2 # a letter left out is nearer than one mistaken
        left[j]=$((above[j - 1] + cost))
        ((above[j] + 1 < left[j])) && left[j]=$((above[j] + 1))
        ((left[j - 1] + 1 < left[j])) && left[j]=$((left[j - 1] + 1))
      done
      above=("${left[@]}")
    done
    if ((above[${#choice}] < least)); then
      least=${above[${#choice}]} best=$choice
    fi
  done
  printf '%s' "$best"
}
