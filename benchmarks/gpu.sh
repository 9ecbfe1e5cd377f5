#!/usr/bin/env bash
# Build, test, time and sanitize the CUDA kernels on a machine with a GPU, in at most nine minutes, without a network:
#
#     benchmarks/gpu.sh OUT
#
# The script builds the kernels, runs the CUDA tests, times the most important passes, runs compute-sanitizer, and then
# runs more tests and all other timings. The stages, in this order, are machine, build, import, tests, headline, plain,
# memcheck, initcheck, synccheck, racecheck, more_tests and rest. Each stage has a separate time limit. A failed stage
# does not stop the next one, except that nothing that needs the kernels runs after a failed build. Results are written
# as soon as they are available:
#
#     OUT/summary.txt   what passed, what failed and the main results, in at most ten lines
#     OUT/log.txt       the output of the stages
#     OUT/compiles.log  the output of compilers that ran in the background
#     OUT/tests.jsonl   the result of each test
#     OUT/gpu.json      the machine and the timings
#
# The exit status is the number of failed stages. A sanitizer that the machine does not support does not count as
# failed. Nor do the sanitizers, more_tests and rest if they reach their time limits. The summary reports both cases.
#
# Requires Python with torch (a CUDA build), pytest, hypothesis, setuptools, ninja and pybind11, g++, and nvcc of
# torch's CUDA version. pytest-xdist makes the tests faster. Compiled files stay in build/gpu for the next call.
#
#     STAGES="tests headline"  run only these stages and those that they depend on
#     LIMITS="tests=300 whole=900"  time limits of stages and of the whole script, in seconds
#     SPN_GPU_STAND_IN=1  rehearse without a GPU: everything is compiled, the CPU replaces the GPU, nothing is measured
#     PYTHON, CUDA_HOME, TORCH_CUDA_ARCH_LIST, MAX_JOBS, TEST_PROCESSES  override the detected or default values
#     SPN_COMMIT  the name of the commit if git is not available
set -u
cd "$(dirname "$0")/.." || exit 2
OUT=${1:?usage: benchmarks/gpu.sh OUT}
mkdir -p "$OUT" || exit 2
OUT=$(cd "$OUT" && pwd)
rm -f "$OUT"/{summary.txt,log.txt,compiles.log,tests.jsonl,gpu.json}
LOG=$OUT/log.txt
touch "$LOG" "$OUT/compiles.log"

STAND_IN=${SPN_GPU_STAND_IN:-}
PYTHON=${PYTHON:-python3}
if [ -z "${CUDA_HOME:-}" ]; then
  CUDA_HOME=/usr/local/cuda
  # An nvcc on the path may be a link to its toolkit.
  if [ ! -x $CUDA_HOME/bin/nvcc ] && command -v nvcc >/dev/null; then
    CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
  fi
fi
export PATH="$CUDA_HOME/bin:$PATH" PYTHONPATH="$PWD" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# torch's version, its headers, and the GPU's compute capability.
read -r TORCH TORCH_INCLUDE CAPABILITY < <("$PYTHON" -c '
import os, torch
capability = "%d.%d" % torch.cuda.get_device_capability() if torch.cuda.is_available() else "9.0"
print(torch.__version__, os.path.join(os.path.dirname(torch.__file__), "include"), capability)')
if [ -z "${CAPABILITY:-}" ]; then
  echo "$PYTHON cannot import torch"
  exit 2
fi
TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$CAPABILITY}
ARCHITECTURE=sm_${CAPABILITY//./}
MAX_JOBS=${MAX_JOBS:-$(nproc)}
# Compiled files are kept in a folder named after a hash of the sources and tools, so that they are never out of date.
sources() {
  cat setup.py build_kernels.py
  find csrc benchmarks tests/emulator -type f \( -name '*.h' -o -name '*.cu' -o -name '*.cpp' \) -print0 | sort -z | xargs -0 cat
  echo "$TORCH $TORCH_CUDA_ARCH_LIST"
  nvcc --version
}
WORK=$PWD/build/gpu/$(sources | sha256sum | cut -c1-16)
mkdir -p "$WORK"
export OUT WORK PYTHON CUDA_HOME TORCH_INCLUDE TORCH_CUDA_ARCH_LIST ARCHITECTURE MAX_JOBS STAND_IN
export SPN_GPU_TESTS=$OUT/tests.jsonl

# The commands of the stages; each runs in a separate shell that a time limit can end.
# shellcheck disable=SC2329
machine() {
  nvcc --version | tail -n 2
  g++ --version | head -n 1
  nvidia-smi || [ -n "$STAND_IN" ]
}
# shellcheck disable=SC2329
built() { [ -n "$(find spn -maxdepth 1 -name '_cuda*.so' ! -newer "$WORK/built" 2>/dev/null)" ]; }
# shellcheck disable=SC2329
build() {
  if built; then
    echo "the kernels are already built from these sources"
    return
  fi
  # Forced, because copied files may have old modification times.
  SPN_BUILD=cuda "$PYTHON" setup.py build_ext --inplace --force --build-temp "$WORK/objects" && touch "$WORK/built"
}
# shellcheck disable=SC2329
run_tests() {
  local processes=()
  # Several processes share the GPU, because the reference launches one kernel per line and leaves it idle.
  if "$PYTHON" -c 'import xdist' 2>/dev/null; then processes=(-n "${TEST_PROCESSES:-4}" --dist worksteal --max-worker-restart 20); fi
  # The processes share the CPU cores.
  OMP_NUM_THREADS=$(((MAX_JOBS + 3) / 4)) "$PYTHON" -m pytest -p benchmarks.cuda.pytest_plugin -p no:cacheprovider -q \
    --maxfail=30 --durations=5 "${processes[@]}" "$@"
}
# shellcheck disable=SC2329
timings() {
  local options=(--json "$OUT/gpu.json" --resume "$@")
  if [ -f "$WORK/libper_column.so" ]; then options+=(--per-column "$WORK/libper_column.so"); fi
  if [ -n "$STAND_IN" ]; then options+=(--stand-in --seconds 0.02); fi
  # 75: the GPU no longer responds, and a new process can time the rest.
  local status=75
  while [ "$status" -eq 75 ]; do
    "$PYTHON" -m benchmarks.cuda.timings "${options[@]}"
    status=$?
  done
  return "$status"
}
# shellcheck disable=SC2329
sanitizer() { # TOOL SECONDS
  if [ -n "$STAND_IN" ]; then
    echo "stand-in for $1"
    "$WORK/sanitize" --list
  elif command -v compute-sanitizer >/dev/null; then
    compute-sanitizer --tool "$1" --error-exitcode 1 "$WORK/sanitize" "$2"
  else
    echo "compute-sanitizer was not found"
    return 1
  fi
}
# These functions run in the background during the first stages, which leave cores idle. Their outputs stay in $WORK.
# shellcheck disable=SC2329
compile_sanitize() {
  [ -x "$WORK/sanitize" ] && return
  nvcc -O3 -std=c++17 -lineinfo --split-compile=0 -arch="$ARCHITECTURE" -DUSE_CUDA -I"$TORCH_INCLUDE" \
    benchmarks/cuda/sanitize.cu csrc/cuda/kernels.cu -o "$WORK/sanitize.unfinished" &&
    mv "$WORK/sanitize.unfinished" "$WORK/sanitize"
}
# shellcheck disable=SC2329
compile_per_column() {
  [ -f "$WORK/libper_column.so" ] && return
  nvcc -O3 -std=c++17 -arch="$ARCHITECTURE" -shared -Xcompiler -fPIC benchmarks/cuda/per_column.cu \
    -o "$WORK/per_column.unfinished" && mv "$WORK/per_column.unfinished" "$WORK/libper_column.so"
}
# shellcheck disable=SC2329
compile_planner() { "$PYTHON" -m benchmarks.cuda.timings --part planner; }

# Tests of this script replace these functions.
# shellcheck source=/dev/null
if [ -n "${SPN_GPU_STUBS:-}" ]; then . "$SPN_GPU_STUBS"; fi
export -f machine built build run_tests timings sanitizer
export -f compile_sanitize compile_per_column compile_planner

FAILED=0
WHOLE=540
if [ -n "$STAND_IN" ]; then WHOLE=7200; fi # enough for few cores
limit_of() { # STAGE DEFAULT
  local chosen
  chosen=$(tr ' ' '\n' <<<"${LIMITS:-}" | sed -n "s/^$1=//p")
  echo "${chosen:-$2}"
}
WHOLE=$(limit_of whole $WHOLE)
wanted() {
  local name
  if [ -z "${STAGES:-}" ]; then return; fi
  for name; do
    if [[ " $STAGES " == *" $name "* ]]; then return; fi
  done
  return 1
}
result() { # STAGE VERDICT
  echo "== $1: $2" | tee -a "$LOG"
  "$PYTHON" -m benchmarks.cuda.summary "$OUT" "$SECONDS"
}
left() { echo $((WHOLE - SECONDS)); }

# Whether a stage may reach its time limit without counting as failed: it does as much as the time allows.
optional() { [[ $1 =~ ^(more_tests|rest|.*check)$ ]]; }
count_failure() { FAILED=$((FAILED + 1)); }

# stage NAME SECONDS COMMAND...
# A stage is interrupted at its limit, so that it can still report its results, and killed ten seconds later.
stage() {
  local name=$1 limit start=$SECONDS from status=0 verdict=ok
  limit=$(limit_of "$name" "$2")
  shift 2
  wanted "$name" || return 0
  if [ -n "$STAND_IN" ] && [ -z "$(limit_of "$name" "")" ]; then limit=$((limit * 10)); fi
  if [ "$limit" -gt "$(left)" ]; then limit=$(left); fi
  if [ "$limit" -lt 1 ]; then
    optional "$name" || count_failure
    result "$name" "NOT RUN, no time left"
    return 1
  fi
  echo "== $name (at most $limit s)" | tee -a "$LOG"
  from=$(wc -c <"$LOG")
  SPN_GPU_STAGE=$name timeout -s INT --kill-after=10 "$limit" "$@" >>"$LOG" 2>&1 </dev/null || status=$?
  written() { tail -c +$((from + 1)) "$LOG"; }
  written | tail -n 8
  if [ $status -eq 124 ] || [ $status -eq 137 ]; then
    verdict=CUT
    optional "$name" || count_failure
  elif [ $status -ne 0 ] && written | grep -qi 'device not supported\|compute-sanitizer was not found'; then
    verdict="NOT POSSIBLE"
  elif [ $status -ne 0 ]; then
    verdict="FAILED ($status)"
    count_failure
  fi
  result "$name" "$verdict $((SECONDS - start)) s"
  return $status
}

declare -A COMPILING=()
# compile NAME: compile in the background, with a lower priority than the build.
compile() {
  SPN_GPU_STAGE=$1 nice -n 5 timeout "$(left)" bash -c "compile_$1" >>"$OUT/compiles.log" 2>&1 &
  COMPILING[$1]=$!
}
# compiled NAME: wait for it, and report a failure once.
compiled() {
  [ "${COMPILING[$1]}" = failed ] && return 1
  wait "${COMPILING[$1]}" && return
  COMPILING[$1]=failed
  count_failure
  tail -n 5 "$OUT/compiles.log"
  result "compile_$1" "FAILED"
  return 1
}

SANITIZERS=(memcheck initcheck synccheck racecheck) # the slowest last: it gets the remaining time
NEED_BUILD=(build import tests headline more_tests rest)
if wanted plain "${SANITIZERS[@]}"; then compile sanitize; fi
if wanted headline rest; then compile planner; fi
if wanted rest && [ -z "$STAND_IN" ]; then compile per_column; fi

stage machine 20 bash -c machine
if wanted "${NEED_BUILD[@]}"; then
  if [ -n "${STAGES:-}" ]; then STAGES+=" build"; fi
  # Without kernels, the other stages would test and time the reference.
  if ! stage build 300 bash -c build; then NEED_BUILD=(); fi
fi
needs_build() { [ ${#NEED_BUILD[@]} -gt 0 ]; }

needs_build && stage import 40 bash -c 'timings --part check'
needs_build && stage tests 180 bash -c 'run_tests tests/spn/test_cuda*.py'
if wanted headline && needs_build; then
  compiled planner # without it, schedules are missing but timings still work
  stage headline 70 bash -c 'timings --part headline --seconds 0.5'
fi

LAST=90 # seconds reserved for the last two stages
if wanted plain "${SANITIZERS[@]}" && compiled sanitize; then
  if [ -z "$STAND_IN" ]; then stage plain 15 "$WORK/sanitize" 10; fi
  tools=0
  for tool in "${SANITIZERS[@]}"; do wanted "$tool" && tools=$((tools + 1)); done
  for tool in "${SANITIZERS[@]}"; do
    wanted "$tool" || continue
    share=$((($(left) - LAST) / tools))
    if [ $share -lt 10 ]; then share=10; fi
    # No problem starts in the last fifth of this time.
    stage "$tool" $share bash -c "sanitizer $tool $((share * 4 / 5))"
    tools=$((tools - 1))
  done
fi
others="tests/spn -k cuda --ignore-glob 'tests/spn/test_cuda*'"
if [ -n "$STAND_IN" ]; then others="tests/spn/test_library.py -k cpu"; fi
needs_build && stage more_tests $(($(left) / 2)) bash -c "run_tests $others"
if wanted rest && needs_build; then
  compiled planner
  if [ -z "$STAND_IN" ]; then compiled per_column; fi
  seconds=$(limit_of rest "$(left)")
  stage rest "$seconds" bash -c "timings --part rest --seconds 0.3 --budget $((seconds - 8))"
fi

echo "== $FAILED failed, $SECONDS s"
"$PYTHON" -m benchmarks.cuda.summary "$OUT" "$SECONDS"
cat "$OUT/summary.txt"
exit "$FAILED"
