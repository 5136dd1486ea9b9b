#!/bin/bash
# N ranks, one process each, on ONE GPU: the path of several GPUs (NCCL, the
# launcher's variables, one plan for all) where only one is at hand.
#
# NCCL refuses two ranks of a host on one device; with a host identifier of its
# own each rank counts as a host, and they talk over TCP. So results, message
# and memory are those of N GPUs, and times are not: ranks take turns on the
# device, and the wire is a socket.
#
# Run: tests/gpu/share_one_gpu.sh N PYTHON ARGUMENT ...
# Exits with the first code of a rank that is not 0.
set -uo pipefail
ranks=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export WORLD_SIZE=$ranks LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 HEDDLE_TEST_FOLDER=$folder
export MASTER_ADDR=127.0.0.1 MASTER_PORT=${MASTER_PORT:-29411}
export NCCL_NVLS_ENABLE=0 NCCL_SOCKET_IFNAME=lo
pids=()
for ((rank = 0; rank < ranks; ++rank)); do
  RANK=$rank NCCL_HOSTID=shared-gpu-$rank "$@" &
  pids+=($!)
done
code=0
for pid in "${pids[@]}"; do
  wait "$pid" || { failed=$?; ((code == 0)) && code=$failed; }
done
exit "$code"
