#!/usr/bin/env bash
# A sweep on the nodes of one Slurm job. Each node runs one Ray node; the first one also runs the command.
#
#     sbatch clusters/slurm.sh sweeper run teachers --dataset celeba --store /shared/runs --data-root /shared/data
#
# When the time is over, submit the same line again: it continues. --address is added. The store must be in a folder that
# all nodes share.
#SBATCH --job-name=sweeper
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

venv=${SWEEPER_VENV:-$HOME/sweeper-venv} # where `pip install '.[cluster]'` was done
# shellcheck disable=SC1091
source "$venv/bin/activate"
(($# > 0)) || { echo "usage: sbatch $0 sweeper run teachers …" >&2; exit 2; }

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST") # with `| head` scontrol may die of a closed pipe
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node
address="$head:$port"
export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 RAY_USAGE_STATS_ENABLED=0
# The ports of Ray are open to other users of the cluster, so only processes with this token may join or run code.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export SWEEPER_CACHE="${SLURM_TMPDIR:-/tmp}/sweeper-cache-$SLURM_JOB_ID"
# Slurm's launchers set these for MPI, and Accelerate would wait for the other processes.
unset LOCAL_RANK RANK WORLD_SIZE PMI_SIZE OMPI_COMM_WORLD_SIZE MV2_COMM_WORLD_SIZE
resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
ulimit -n "$(ulimit -H -n)"

# Starts Ray on all nodes, waits for them, runs the command on the first, and stops Ray.
exec srun --kill-on-bad-exit=0 --mpi=none \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" "${resources[@]}" -- "$@" --address "$address"
