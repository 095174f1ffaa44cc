#!/usr/bin/env bash
# Train on several GPUs, or on several CPU processes where there are none:
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# VERIFY=1 checks the config first, and does not train with one that has errors.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT as with mmdet.
# Ends with 75 when SIGTERM or SIGUSR1 stopped the run, which is saved: start again with --resume. See docs/clusters.md.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
ROOT=$(cd "$(dirname "$0")/.." && pwd)

if [ "${VERIFY:-0}" = 1 ] && [ "${NODE_RANK:-0}" = 0 ]; then
    PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" python "$ROOT/tools/verify_config.py" "$CONFIG" \
        --gpus "$((GPUS * ${NNODES:-1}))" "${@:3}"
fi

PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" exec python -m kdplugin.elastic \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$ROOT/tools/train.py" "$CONFIG" --launcher pytorch "${@:3}"
