#!/bin/bash
# Tries array.sbatch on a Slurm of one node, on this machine: a whole array, and one with a task that is killed.
#
#   apt-get install --no-install-recommends slurm-wlm munge      (Debian, Ubuntu)
#   examples/ci/slurm/one-node.sh kernels.tar.zst --arch host
#
# Everything that Slurm writes is in a folder of its own, which is removed at the end, and so are its daemons. Needs no
# root; jobs then run as whoever calls it. `cargo-accuracy` has to be in PATH.
set -euo pipefail

archive=$(realpath "$1")
shift
here=$(dirname "$(realpath "$0")")
dir=$(mktemp -d)
chmod 755 "$dir"
cd "$dir"
mkdir -m 700 munge
mkdir state spool

stop() {
    # The controller last: it would start what the others no longer run again.
    for name in slurmd slurmctld munged; do
        pid=$(cat "$name.pid" 2> /dev/null) || continue
        kill "$pid" 2> /dev/null || true
        while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
    done
    cd / && rm -rf "$dir"
}
trap stop EXIT

head -c 1024 /dev/urandom > munge/key
chmod 600 munge/key
munged --key-file="$dir/munge/key" --seed-file="$dir/munge/seed" --socket="$dir/munge.socket" \
    --pid-file="$dir/munged.pid" --log-file="$dir/munge/log" --force 2> /dev/null

node=$(hostname -s)
cat > slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=5
ReturnToService=2
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$dir/slurm.conf
slurmctld
slurmd
for _ in $(seq 100); do
    [ "$(sinfo -h -o %T)" = idle ] && break
    sleep 0.2
done
sinfo

# expect STATUS COMMAND...: runs it and stops if it exits otherwise.
expect() {
    local wanted=$1 status=0
    shift
    echo "\$ $*"
    "$@" || status=$?
    echo "(exit status $status)"
    [ "$status" = "$wanted" ]
}

echo "== an array of four"
job=$(sbatch --parsable --wait "$here/array.sbatch" "$archive" "$@")
grep -h '^part ' accuracy-"$job"_*.log
expect 0 cargo-accuracy report -q parts/"$job"/*/accuracy/latest

echo "== an array of four, of which the third task is killed before it starts its cases"
job=$(sbatch --parsable --hold "$here/array.sbatch" "$archive" "$@")
scancel "${job}_3"
scontrol release "$job"
while squeue -h -j "$job" 2> /dev/null | grep -q .; do sleep 0.5; done
expect 101 cargo-accuracy report -q parts/"$job"/*/accuracy/latest

echo "== an array of four, of which the first task is killed while it runs its cases"
job=$(sbatch --parsable "$here/array.sbatch" "$archive" "$@")
until ls parts/"$job"/1/accuracy/latest/*.started > /dev/null 2>&1; do sleep 0.05; done
# As the kernel does where memory is short: no time to clean up. The folder's name ends with the process.
kill -KILL "$(readlink parts/"$job"/1/accuracy/latest | sed 's/.*-//')"
while squeue -h -j "$job" 2> /dev/null | grep -q .; do sleep 0.5; done
expect 100 cargo-accuracy report -q parts/"$job"/*/accuracy/latest
echo "== all as expected"
