#!/bin/bash
# Draw showers in SHARDS jobs and merge them into OUT; the file is what one job would have written.
#
#   scripts/slurm/submit_sample.sh 10 showers.h5 runs/ild_photons/l2lflows/default -n 1000000 --energy 50GeV
#
# Options of sbatch go into SBATCH_OPTIONS: SBATCH_OPTIONS="--partition=cpu".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
read -r -a options <<<"${SBATCH_OPTIONS:-}"
if [ $# -lt 3 ]; then
  echo "error: give the number of shards, the output, a run and the options of calo-sample" >&2
  echo "  where: $0" >&2
  echo "  do:    $0 10 showers.h5 runs/DATASET/MODEL/NAME -n 1000000 --energy 50GeV" >&2
  exit 2
fi
count=$1 out=$2
shift 2

job=$(sbatch --parsable "${options[@]}" --array="0-$((count - 1))" "$here/sample.sbatch" "$out" "$@")
echo "shards: job $job"
job=$(sbatch --parsable "${options[@]}" --dependency="afterok:$job" --kill-on-invalid-dep=yes \
  "$here/merge.sbatch" "$out" "$count")
echo "merge: job $job"
