#!/usr/bin/env bash
# Runs tests with Firecracker in the KVM lab, as many machines at a time as there are processors. Prints "N passed,
# N failed" as its last line.
#
# usage: run.sh [PART...]     without names: lifecycle and drivers
#   drivers       the drivers' conformance suite
#   lifecycle     a sandbox's life through REST, and its pause by itself
#   faults, rest  all of tests/faults and tests/functional, in two parts of equal length
#                 Left out is what takes minutes here and tells nothing new: a thousand processes in one guest, and the
#                 second moment of each kill of agent and control plane.
#   WRENN_BUILD   build folder of the unit tests (build/release)
#   WRENN_BUILDS  holds the programs (builds/)
#
# QEMU's emulation of SVM is not perfect: now and then it panics the lab's kernel or freezes a guest. So tests that do
# not pass are said to and repeated on a fresh machine, twice at most. What fails for a reason of ours fails on each.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${WRENN_BUILD:-$PWD/build/release}
builds=${WRENN_BUILDS:-$PWD/builds}
results=build/kvmlab
mkdir -p "$results"
scripts/install-firecracker.sh && . tests/venv.sh && [ -n "$venv" ] || { echo "0 passed, 1 failed"; exit 1; }

count() { sed -nE "$1" "$log" | tail -n 1; }
# The tests that a log says failed, one a line; none when the machine did not live to say so.
failed_tests() {
  sed -nE 's/^(FAILED|ERROR) (tests\/.*::[^ ].*)$/\2/p' "$log" | sed 's/ - .*//' | sort -u
  sed -nE 's/^\[  FAILED  \] (All\/[^, ]+), where.*/\1/p' "$log" | sort -u
}

# part NAME SECONDS RUN TEST...: RUN is a function that turns tests into `command`.
part() {
  local name=$1 limit=$2 run=$3 began=$SECONDS log total=0 ok bad code try
  shift 3
  local tests=("$@") left
  for try in 1 2 3; do
    log=$results/$name-$try.log
    "$run" "${tests[@]}"
    tests/kvmlab/kvmlab run --timeout "$limit" --results "$results/$name" --env AGENT_DRIVER=firecracker \
      --env WRENN_VMM_DRIVERS=firecracker --env "WRENN_BUILDS=$builds" -- "${command[@]}" >"$log" 2>&1
    code=$?
    ok=$(count 's/^([0-9]+) passed, [0-9]+ failed$/\1/p; s/^\[  PASSED  \] ([0-9]+) tests?\.$/\1/p')
    bad=$(count 's/^[0-9]+ passed, ([0-9]+) failed$/\1/p; s/^ *([0-9]+) FAILED TESTS?$/\1/p')
    mapfile -t left < <(failed_tests)
    # Of a run that did not come to its summary nothing counts: all of it is repeated.
    [ -n "$ok$bad" ] || left=()
    [ $code -eq 0 ] || [ ${#left[@]} -gt 0 ] || ok=0
    total=$((total + ${ok:-0}))
    [ $code -ne 0 ] || break
    echo "firecracker, $name: not passed after $((SECONDS - began)) s (exit $code, machine $try of 3): ${left[*]}"
    grep -aE "Kernel panic|kvmlab:|^E  " "$log" | head -n 20
    [ ${#left[@]} -eq 0 ] || tests=("${left[@]}")
  done
  [ $code -eq 0 ] && bad=0
  if [ $code -ne 0 ] || [ $total -eq 0 ]; then
    [ "${bad:-0}" -gt 0 ] || bad=1
    tail -n 150 "$log"
  fi
  echo "firecracker, $name: $total passed, $bad failed in $((SECONDS - began)) s (exit $code)"
  echo "$total $bad" >"$results/$name.count"
}
by_gtest() { local IFS=:; command=("$build/src/vmm_tests" "--gtest_filter=$*"); }
by_pytest() {
  command=(tests/functional/run.sh --timeout 300 "$@")
  for each in "$@"; do
    # Named alone they are repeated.
    case $each in *::*) return ;; esac
  done
  command+=(--deselect functional/test_abuse.py::test_a_thousand_processes)
  for each in wrenn-agent wrenn-cp both; do
    command+=(--deselect "faults/test_kill.py::test_program_killed[$each-0.35]")
  done
}

[ $# -gt 0 ] || set -- lifecycle drivers
for name in "$@"; do
  rm -f "$results/$name.count"
  while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  case $name in
    drivers) part drivers 500 by_gtest 'All/*' & ;;
    lifecycle) part lifecycle 700 by_pytest tests/functional/test_{lifecycle,auto_pause}.py & ;;
    faults) part faults 1500 by_pytest tests/faults tests/functional/test_{auto_pause,postgres}.py & ;;
    rest) part rest 1500 by_pytest $(ls tests/functional/test_*.py | grep -vE 'test_(auto_pause|postgres)\.py') & ;;
    *) echo "run.sh: no part $name" >&2; exit 2 ;;
  esac
done
wait
passed=0 failed=0
for name in "$@"; do
  read -r ok bad <"$results/$name.count" || { ok=0 bad=1; }
  passed=$((passed + ok)) failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
