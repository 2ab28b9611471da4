#!/bin/bash
# A SLURM cluster of this one machine, on loopback only, to try scripts and to run tests on.
#
#   scripts/slurm/one_node_cluster.sh up FOLDER [PORT]     then: export SLURM_CONF=FOLDER/slurm.conf
#   scripts/slurm/one_node_cluster.sh down FOLDER
#
# Root of a Debian or Ubuntu machine with the packages slurm-wlm and munge; no systemd or cgroups.
# Partition `low` (the default) is preempted by `high`. Two GPUs are pretended.
set -euo pipefail
action=${1:-} folder=${2:-} port=${3:-16817}
if [ -z "$folder" ] || { [ "$action" != up ] && [ "$action" != down ]; }; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
export SLURM_CONF=$folder/slurm.conf

wait_for() { # 20 s for a command to print a word
  for _ in $(seq 100); do
    if "${@:2}" 2>&1 | grep -q "$1"; then return; fi
    sleep 0.2
  done
  echo "error: no '$1' from: ${*:2}; see $folder/log" >&2
  exit 5
}

up() {
  local host memory
  host=$(hostname -s)
  # A node that promises more than the machine has is drained.
  memory=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024 * 9 / 10))
  mkdir -p "$folder"/{state,spool,log}
  chmod 755 "$folder"
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  for index in 0 1; do # SLURM wants device files; these are /dev/null
    [ -e "$folder/gpu$index" ] || mknod "$folder/gpu$index" c 1 3
  done
  printf 'AutoDetect=off\nNodeName=%s Name=gpu File=%s/gpu[0-1]\n' "$host" "$folder" \
    >"$folder/gres.conf"
  # cred_expire: a requeued job waits 10 s instead of two minutes.
  # config_overrides: the node may claim more cores than the machine has.
  cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.sock,cred_expire=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=$memory Gres=gpu:2
PartitionName=low Nodes=$host Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=$host PriorityTier=10 PreemptMode=OFF
CONF
  munged --force --socket="$folder/munge.sock" --key-file="$folder/munge.key" \
    --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" \
    --seed-file="$folder/munge.seed"
  slurmctld -c
  wait_for UP scontrol ping
  slurmd
  wait_for idle sinfo --noheader --format=%T
}

down() {
  scancel --user=root 2>/dev/null || true
  scontrol shutdown 2>/dev/null || true
  sleep 1
  for daemon in slurmd slurmctld munged; do
    if [ -s "$folder/$daemon.pid" ]; then
      kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
    fi
  done
}

"$action"
