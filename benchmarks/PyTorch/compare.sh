#!/usr/bin/env bash
# All checks of docs/gpu.md, then the same training in PyTorch, eager and compiled. On a machine with PyTorch and its GPUs:
#   benchmarks/PyTorch/compare.sh                    devices cuda:0, or all of DEVICES=cuda:0,cuda:1
#   DEVICES=cpu PRESETS=tiny benchmarks/PyTorch/compare.sh      tries the script itself on a CPU
# The figures go to the terminal and to OUT (default ./gpu-figures.txt). It ends with 1 where a check fails, and goes on to the others.
set -u
cd "$(dirname "$0")/../.."
DEVICES=${DEVICES:-cuda:0}
FIRST=${DEVICES%%,*}
# 12.6M parameters at d 384 and 6 layers is the CPU benchmark's size; 400m is the reference's.
PRESETS=${PRESETS:-12.6m 400m}
STEPS=${STEPS:-30}
OUT=${OUT:-gpu-figures.txt}
PYTHON=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
torch=$($PYTHON -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))' 2>/dev/null)
# Beside PyTorch's libtorch the program is built without one of its own.
if [ -n "$torch" ]; then backend=none; library=(--libtorch "$torch"); else backend=; library=(); fi
dotnet build -c Release -v q ${backend:+-p:TorchBackend=$backend} benchmarks/NopeGpt.Benchmarks || exit 1
ours() { dotnet run --no-build -c Release ${backend:+-p:TorchBackend=$backend} --project benchmarks/NopeGpt.Benchmarks -- gpu "$@" "${library[@]}" || failed=1; }
theirs() { [ -z "$torch" ] || "$PYTHON" benchmarks/PyTorch/train.py "$@" || failed=1; }
{
  date -u; uname -a; nvidia-smi 2>/dev/null || echo 'no nvidia-smi'
  ours parity --device "$FIRST"
  ours losses --device "$FIRST"
  ours sharding --devices "$DEVICES"
  ours collectives --devices "$DEVICES" --elements 16777216
  [ -n "$torch" ] || echo 'no PyTorch: only our own figures'
  for preset in $PRESETS; do
    for precision in float32 bfloat16; do
      case $preset in 400m) batch=${BATCH:-8} length=${LENGTH:-1024} ;; *) batch=8 length=256 ;; esac
      same=(--batch "$batch" --length "$length" --steps "$STEPS" --device "$FIRST" --precision "$precision" --weights "$scratch/$preset" --batches "$scratch/ids")
      rm -rf "$scratch/$preset"
      ours throughput --preset "$preset" "${same[@]}" --json "$scratch/ours.json"
      theirs "${same[@]}" --beside "$scratch/ours.json"
      theirs "${same[@]}" --beside "$scratch/ours.json" --compile
    done
  done
  exit $failed
} 2>&1 | tee "$OUT"
exit "${PIPESTATUS[0]}"
