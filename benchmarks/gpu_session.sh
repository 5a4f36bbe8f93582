#!/usr/bin/env bash
# Everything that needs a card, in under 14 minutes: the gpu tests, then both benchmarks with a new table of layers.
# Usage: bash benchmarks/gpu_session.sh [FOLDER for what is printed]; needs requirements/gpu.txt and h2load.
# PARTS="doctor tests gpu_training" runs these alone, where a command may not take so long.
# DRY=--cpu-dry-run runs the same lines on a CPU, where the tests skip and the figures mean nothing.
set -u
out=${1:-gpu-session}
mkdir -p "$out"
python=${PYTHON:-.venv/bin/python}
read -ra dry <<<"${DRY:-}"
# Where onnxruntime-gpu finds cuBLAS and cuDNN: in the packages that torch brings.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
LD_LIBRARY_PATH=$(printf '%s:' "$site"/nvidia/*/lib)${LD_LIBRARY_PATH:-}
export LD_LIBRARY_PATH
status=0
run() {
    local name=$1 seconds=$2
    shift 2
    [[ " ${PARTS:-$name} " == *" $name "* ]] || return
    echo "== $name (at most $seconds s)"
    timeout "$seconds" "$@" >"$out/$name.txt" 2>&1 || { status=1; echo "   ended with $?"; }
    tail -n 25 "$out/$name.txt"
}
nvidia-smi >"$out/nvidia-smi.txt" 2>&1
# To collect all tests would take a minute.
mapfile -t tests < <(grep -rlE 'mark\.gpu|tests\.card' tests --include='test_*.py')
run doctor 30 "$python" -m pipeline doctor
run tests 180 "$python" -m pytest -m gpu -q -n 4 -p no:cacheprovider "${tests[@]}"
run gpu_serving 330 "$python" -m benchmarks.gpu_serving --json --table "$out/cuda_layers.json" "${dry[@]}"
run gpu_training 300 "$python" -m benchmarks.gpu_training --json "${dry[@]}"
exit $status
