#!/usr/bin/env bash
# Everything that a machine with a GPU can say, in one call of less than nine minutes, without a network:
#
#     benchmarks/gpu.sh OUT
#
# builds the kernels, runs the CUDA tests, times both passes, and runs compute-sanitizer. Each stage has a time limit of
# its own and leaves a log in OUT; a stage that fails does not stop the next. OUT/summary.txt says what happened, and
# the exit status is the number of stages that failed.
#
# Needs Python with torch (a CUDA build), pytest, hypothesis, setuptools and ninja, and nvcc of torch's CUDA version.
# PYTHON, CUDA_HOME and TORCH_CUDA_ARCH_LIST override what is found.
set -u
cd "$(dirname "$0")/.."
OUT=${1:?usage: benchmarks/gpu.sh OUT}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
PYTHON=${PYTHON:-python3}
if [ -z "${CUDA_HOME:-}" ]; then
  if command -v nvcc >/dev/null; then CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")"); else CUDA_HOME=/usr/local/cuda; fi
fi
export CUDA_HOME PATH="$CUDA_HOME/bin:$PATH" PYTHONPATH="$PWD" PYTHONUNBUFFERED=1
if [ -z "${TORCH_CUDA_ARCH_LIST:-}" ]; then
  TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())' 2>/dev/null || echo 9.0)
fi
export TORCH_CUDA_ARCH_LIST
ARCHITECTURE=sm_${TORCH_CUDA_ARCH_LIST//./}
BUILD=$OUT/build
FAILED=0
: >"$OUT/summary.txt"

# stage NAME SECONDS COMMAND...: no longer than SECONDS, nor than what is left of the whole.
WHOLE=525
stage() {
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  if [ $((WHOLE - SECONDS)) -lt "$limit" ]; then limit=$((WHOLE - SECONDS)); fi
  if [ "$limit" -lt 5 ]; then
    FAILED=$((FAILED + 1))
    echo "$name: FAILED (no time left)" | tee -a "$OUT/summary.txt"
    return
  fi
  echo "== $name (at most $limit s)"
  timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1 || status=$?
  local verdict=ok
  if [ $status -ne 0 ]; then
    verdict="FAILED ($status)"
    FAILED=$((FAILED + 1))
  fi
  tail -n 12 "$OUT/$name.log"
  echo "$name: $verdict, $((SECONDS - start)) s" | tee -a "$OUT/summary.txt"
}

machine() {
  nvidia-smi || true
  nvcc --version | tail -n 2
  "$PYTHON" -c 'import sys, torch; print(sys.version); print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name())'
  git rev-parse HEAD 2>/dev/null || true
}
build() {
  SPN_BUILD=cuda MAX_JOBS=${MAX_JOBS:-8} "$PYTHON" setup.py build_ext --inplace --build-temp "$BUILD"
}
check_import() {
  "$PYTHON" -c '
import torch, spn
print(spn.show_config())
assert spn._ops.CUDA.loaded, spn._ops.CUDA.reason
x, g = torch.randn(2, 3, 40, 50, device="cuda"), torch.randn(2, 4, 3, 3, 40, 50, device="cuda")
got = spn.propagate_four_way(x, g, normalize="abs")
want = spn.reference.propagate_four_way(x.double(), g.double(), normalize="abs")
error = ((got - want).norm() / want.norm()).item()
print("relative error", error)
assert error < 1e-5
'
}
per_column() {
  nvcc -O3 -std=c++17 -arch="$ARCHITECTURE" -shared -Xcompiler -fPIC benchmarks/per_column.cu -o "$OUT/libper_column.so"
}
sanitize_build() {
  local include
  include=$("$PYTHON" -c 'import torch, os; print(os.path.join(os.path.dirname(torch.__file__), "include"))')
  nvcc -O3 -std=c++17 -lineinfo -arch="$ARCHITECTURE" -DUSE_CUDA -I"$include" \
    benchmarks/sanitize.cu csrc/cuda/kernels.cu -o "$OUT/sanitize"
}
sanitizer() {
  local tool=$1
  if ! command -v compute-sanitizer >/dev/null; then
    echo "SKIPPED: compute-sanitizer was not found"
    return 0
  fi
  shift
  compute-sanitizer --tool "$tool" --error-exitcode 1 "$@" "$OUT/sanitize"
}
export -f machine build check_import per_column sanitize_build sanitizer
export OUT PYTHON BUILD ARCHITECTURE

stage machine 20 bash -c machine
stage build 200 bash -c build
# The sanitizers' program is compiled beside the tests, which leave most cores idle.
bash -c sanitize_build >"$OUT/sanitize_build.log" 2>&1 &
SANITIZE_BUILD=$!
# So is the emulator, whose planner tells the benchmark what a schedule moves.
"$PYTHON" -c 'import benchmarks.traffic, kernel_emulator; kernel_emulator.load()' >"$OUT/planner_build.log" 2>&1 &
stage import 40 bash -c check_import
stage tests 130 "$PYTHON" -m pytest tests/spn/test_cuda.py -q --maxfail=20 -p no:cacheprovider -o addopts=-ra
stage per_column 40 bash -c per_column
PER_COLUMN=()
if [ -f "$OUT/libper_column.so" ]; then PER_COLUMN=(--per-column "$OUT/libper_column.so"); fi
stage benchmark 110 "$PYTHON" -m benchmarks.gpu --seconds 0.5 --json "$OUT/gpu.json" ${PER_COLUMN[@]+"${PER_COLUMN[@]}"}
wait "$SANITIZE_BUILD" 2>/dev/null
if [ -x "$OUT/sanitize" ]; then
  stage plain 15 "$OUT/sanitize"
  stage memcheck 30 bash -c 'sanitizer memcheck'
  stage racecheck 40 bash -c 'sanitizer racecheck'
  stage initcheck 30 bash -c 'sanitizer initcheck'
else
  echo "sanitize: FAILED to build, see sanitize_build.log" | tee -a "$OUT/summary.txt"
  FAILED=$((FAILED + 1))
fi
rm -rf "$BUILD" "$OUT/sanitize" "$OUT/libper_column.so"

echo "== summary"
cat "$OUT/summary.txt"
exit "$FAILED"
