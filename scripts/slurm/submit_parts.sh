#!/bin/bash
# Submit a training as arrays over its part groups: a stage waits for the one before it, and a last
# job writes the generator. Stages are STAGE:PARTS:SIZE, SIZE parts a job; `calo-train ...
# dry_run=true` shows how many parts each stage has.
#
#   scripts/slurm/submit_parts.sh energy:1:1 causal:30:5 -- model=l2lflows dataset=... name=wide
#
# Options of sbatch go into SBATCH_OPTIONS: SBATCH_OPTIONS="--partition=gpu --gpus-per-node=1".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
read -r -a options <<<"${SBATCH_OPTIONS:-}"

stages=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  stages+=("$1")
  shift
done
if [ $# -lt 2 ] || [ ${#stages[@]} = 0 ]; then
  echo "error: give stages, --, and the words of calo-train" >&2
  echo "  where: $0" >&2
  echo "  do:    $0 energy:1:1 causal:30:5 -- model=l2lflows name=wide" >&2
  exit 2
fi
shift

waits=()
for item in "${stages[@]}"; do
  IFS=: read -r stage parts size <<<"$item"
  job=$(sbatch --parsable "${options[@]}" "${waits[@]}" \
    --array="0-$(((parts + size - 1) / size - 1))" "$here/parts.sbatch" \
    "$stage" "$parts" "$size" "$@")
  echo "$stage: job $job"
  waits=("--dependency=afterok:$job" --kill-on-invalid-dep=yes)
done
job=$(sbatch --parsable "${options[@]}" "${waits[@]}" "$here/train.sbatch" "$@")
echo "generator: job $job"
