#!/usr/bin/env bash
# Train on a Slurm cluster:
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#       tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# A run that Slurm stops (its time is up, or another job comes first) saves, and goes on where it was:
#   GRACE=120        seconds before the end of the time at which Slurm sends SIGUSR1
#   RESTARTS=100     how often it goes on
#   BATCH=1 [SBATCH_ARGS=...]   submit a batch job, which Slurm requeues; without it this script waits and starts srun again
# See docs/clusters.md.
# VERIFY=1 checks the config first, here and not in the job, and submits nothing that has errors.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
GRACE=${GRACE:-120}
STOPPED=75
ROOT=$(cd "$(dirname "$0")/.." && pwd)

if [ "${VERIFY:-0}" = 1 ]; then
    PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" python "$ROOT/tools/verify_config.py" "$CONFIG" \
        --gpus "$GPUS" --work-dir "$WORK_DIR" "${@:5}"
fi

# SBATCH_ARGS and SRUN_ARGS hold several words on purpose.
if [ "${BATCH:-0}" = 1 ]; then
    # shellcheck disable=SC2086
    exec sbatch -p "$PARTITION" \
        --job-name="$JOB_NAME" \
        --gres="gpu:$GPUS_PER_NODE" \
        --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --requeue \
        --signal="USR1@$GRACE" \
        --open-mode=append \
        ${SBATCH_ARGS:-} \
        --wrap="$(printf '%q ' env BATCH=0 VERIFY=0 "$ROOT/tools/slurm_train.sh" "$@")"
fi

train() {
    # shellcheck disable=SC2086
    PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" srun -p "$PARTITION" \
        --job-name="$JOB_NAME" \
        --gres="gpu:$GPUS_PER_NODE" \
        --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        --signal="USR1@$GRACE" \
        ${SRUN_ARGS:-} \
        python -u "$ROOT/tools/train.py" "$CONFIG" --work-dir="$WORK_DIR" --launcher=slurm "$@"
}

# Slurm may kill a slower task when the first one ends, so its exit code is not the only sign: rank 0 leaves a file.
was_stopped() { [ "$1" -eq "$STOPPED" ] || [ -e "$WORK_DIR/stopped" ]; }

resume=()
[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && resume=(--resume)
trap : TERM USR1 # srun passes them on; this script waits for what the training does
left=${RESTARTS:-100}
while :; do
    rm -f "$WORK_DIR/stopped"
    code=0
    train "${@:5}" "${resume[@]}" || code=$?
    was_stopped "$code" || exit "$code"
    if [ "${ENVIRONMENT:-}" = BATCH ]; then # Slurm's name for a batch job
        echo "stopped and saved: requeueing job $SLURM_JOB_ID" >&2
        scontrol requeue "$SLURM_JOB_ID" || true
        exit "$STOPPED"
    fi
    [ "$left" -gt 0 ] || exit "$STOPPED"
    left=$((left - 1))
    echo "stopped and saved: going on" >&2
    resume=(--resume)
done
