#!/usr/bin/env bash
# Everything that a machine with a GPU can say, in one call of less than nine minutes, without a network:
#
#     benchmarks/gpu.sh OUT
#
# builds the kernels, runs the CUDA tests, times both passes, and runs compute-sanitizer. Each stage has a time limit of
# its own; one that fails does not stop the next. OUT/summary.txt says what happened, OUT/log.txt all of it,
# OUT/machine.json where and with what, OUT/gpu.json holds the timings. The exit status is the number of failed stages.
#
# Needs Python with torch (a CUDA build), pytest, hypothesis, setuptools, ninja and pybind11, g++, and nvcc of torch's
# CUDA version. PYTHON, CUDA_HOME and TORCH_CUDA_ARCH_LIST override what is found; SPN_COMMIT names the commit where
# there is no git. STAGES="build tests" runs these alone.
set -u
cd "$(dirname "$0")/.." || exit 2
OUT=${1:?usage: benchmarks/gpu.sh OUT}
mkdir -p "$OUT" || exit 2
OUT=$(cd "$OUT" && pwd)
PYTHON=${PYTHON:-python3}
if [ -z "${CUDA_HOME:-}" ]; then
  CUDA_HOME=/usr/local/cuda
  # An nvcc on the path may be a script that stands apart from its toolkit.
  if [ ! -x $CUDA_HOME/bin/nvcc ] && command -v nvcc >/dev/null; then
    CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
  fi
fi
if [ -z "${TORCH_CUDA_ARCH_LIST:-}" ]; then
  TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())' 2>/dev/null || echo 9.0)
fi
ARCHITECTURE=sm_${TORCH_CUDA_ARCH_LIST//./}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export OUT WORK PYTHON CUDA_HOME TORCH_CUDA_ARCH_LIST ARCHITECTURE PATH="$CUDA_HOME/bin:$PATH"
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
FAILED=0
: >"$OUT/summary.txt"
: >"$OUT/log.txt"

keep_log() {
  { echo "== $1" && cat "$WORK/$1.log" && echo; } >>"$OUT/log.txt"
}
say() { echo "$1" | tee -a "$OUT/summary.txt"; }

# stage NAME SECONDS COMMAND...: no longer than SECONDS, nor than what is left of the whole. The limits add up to less.
WHOLE=525
stage() {
  local name=$1 limit=$2 start=$SECONDS status=0 verdict=ok
  shift 2
  if [ -n "${STAGES:-}" ] && [[ " $STAGES " != *" $name "* ]]; then return; fi
  if [ $((WHOLE - SECONDS)) -lt "$limit" ]; then limit=$((WHOLE - SECONDS)); fi
  if [ "$limit" -lt 5 ]; then
    FAILED=$((FAILED + 1))
    say "$name: FAILED (no time left)"
    return
  fi
  echo "== $name (at most $limit s)"
  timeout --kill-after=5 "$limit" "$@" >"$WORK/$name.log" 2>&1 || status=$?
  if [ $status -eq 124 ] || [ $status -eq 137 ]; then verdict="FAILED (took longer than $limit s)"; fi
  if [ $status -ne 0 ]; then
    [ "$verdict" = ok ] && verdict="FAILED ($status)"
    FAILED=$((FAILED + 1))
  fi
  tail -n 15 "$WORK/$name.log"
  keep_log "$name"
  say "$name: $verdict, $((SECONDS - start)) s"
}

# What stages run; called by name in a shell of their own, which timeout can end.
# shellcheck disable=SC2329
machine() {
  nvidia-smi
  nvcc --version | tail -n 2
  g++ --version | head -n 1
  "$PYTHON" -c '
import json, os, sys, torch, spn
from benchmarks import machine
facts = machine.describe("cuda" if torch.cuda.is_available() else "cpu")
facts["commit"] = os.environ.get("SPN_COMMIT", facts["commit"])
json.dump(facts, open(sys.argv[1], "w"), indent=1)
print(json.dumps(facts, indent=1))
assert torch.cuda.is_available(), "torch sees no GPU"
' "$OUT/machine.json"
}
# shellcheck disable=SC2329
build() {
  SPN_BUILD=cuda MAX_JOBS=${MAX_JOBS:-8} "$PYTHON" setup.py build_ext --inplace --build-temp "$WORK/build"
}
# shellcheck disable=SC2329
import_kernels() {
  "$PYTHON" -c '
import torch, spn
print(spn.show_config())
why = spn._ops.why_reference(torch.device("cuda"))
assert why is None, why
x, g = torch.randn(2, 3, 40, 50, device="cuda"), torch.randn(2, 4, 3, 3, 40, 50, device="cuda")
got = spn.propagate_four_way(x, g, normalize="abs")
want = spn.reference.propagate_four_way(x.double(), g.double(), normalize="abs")
error = ((got - want).norm() / want.norm()).item()
print("relative error", error)
assert error < 1e-5
'
}
# shellcheck disable=SC2329
tests() {
  # Without a GPU or kernels all tests would be skipped, and pass.
  "$PYTHON" -c 'import torch, spn; assert torch.cuda.is_available() and spn._ops.CUDA.loaded' &&
    "$PYTHON" -m pytest tests/spn/test_cuda.py -q --maxfail=20 -p no:cacheprovider --durations=5
}
# shellcheck disable=SC2329
per_column() {
  nvcc -O3 -std=c++17 -arch="$ARCHITECTURE" -shared -Xcompiler -fPIC benchmarks/per_column.cu -o "$WORK/libper_column.so"
}
# shellcheck disable=SC2329
benchmark() {
  local baseline=()
  if [ -f "$WORK/libper_column.so" ]; then baseline=(--per-column "$WORK/libper_column.so"); fi
  "$PYTHON" -m benchmarks.gpu --seconds 0.3 --json "$OUT/gpu.json" ${baseline[@]+"${baseline[@]}"}
}
# shellcheck disable=SC2329
sanitize_build() {
  local include
  include=$("$PYTHON" -c 'import torch, os; print(os.path.join(os.path.dirname(torch.__file__), "include"))')
  nvcc -O3 -std=c++17 -lineinfo --split-compile=0 -arch="$ARCHITECTURE" -DUSE_CUDA -I"$include" \
    benchmarks/sanitize.cu csrc/cuda/kernels.cu -o "$WORK/sanitize"
}
# shellcheck disable=SC2329
planner_build() {
  "$PYTHON" -c 'from benchmarks.schedule import kernel_emulator; print(kernel_emulator.load())'
}
# shellcheck disable=SC2329
sanitizer() {
  local tool=$1
  if ! command -v compute-sanitizer >/dev/null; then
    echo "compute-sanitizer was not found"
    return 1
  fi
  compute-sanitizer --tool "$tool" --error-exitcode 1 "$WORK/sanitize"
}
export -f machine build import_kernels tests per_column benchmark sanitize_build planner_build sanitizer

# What later stages need is compiled beside the earlier ones, which leave most cores idle.
if [ -z "${STAGES:-}" ]; then
  timeout 240 bash -c sanitize_build >"$WORK/sanitize_build.log" 2>&1 &
  SANITIZE_BUILD=$!
  timeout 240 bash -c planner_build >"$WORK/planner_build.log" 2>&1 &
  PLANNER_BUILD=$!
fi
stage machine 20 bash -c machine
stage build 150 bash -c build
stage import 20 bash -c import_kernels
stage tests 110 bash -c tests
stage per_column 20 bash -c per_column
stage benchmark 100 bash -c benchmark
if [ -n "${SANITIZE_BUILD:-}" ]; then
  wait "$SANITIZE_BUILD" "$PLANNER_BUILD"
  keep_log sanitize_build
  keep_log planner_build
fi
stage plain 10 "$WORK/sanitize"
stage memcheck 25 bash -c 'sanitizer memcheck'
stage racecheck 35 bash -c 'sanitizer racecheck'
stage initcheck 25 bash -c 'sanitizer initcheck'

echo "== summary after $SECONDS s"
cat "$OUT/summary.txt"
exit "$FAILED"
