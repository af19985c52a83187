#!/usr/bin/env bash
# Runs tests with Firecracker in the KVM lab. Prints "N passed, N failed" as its last line.
#
# usage: run.sh [drivers] [lifecycle]     without names: drivers
#   drivers    the drivers' conformance suite
#   lifecycle  a sandbox's life through REST, on real VMs
#   WRENN_BUILD   build folder of the unit tests (build/release)
#   WRENN_BUILDS  holds the programs (builds/)
#
# QEMU's emulation of SVM is not perfect: now and then, with Firecracker and with QEMU+KVM alike, it panics the lab's
# kernel or freezes a guest in it. So a part that does not pass is said to and repeated on a fresh machine, twice at
# most. What fails for a reason of ours fails on each of them.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${WRENN_BUILD:-$PWD/build/release}
builds=${WRENN_BUILDS:-$PWD/builds}
results=build/kvmlab
mkdir -p "$results"
scripts/install-firecracker.sh && . tests/venv.sh && [ -n "$venv" ] || { echo "0 passed, 1 failed"; exit 1; }

passed=0 failed=0
# part NAME SECONDS COMMAND...: counts "N passed, N failed" or gtest's lines in what the command prints.
part() {
  local name=$1 limit=$2 began=$SECONDS log=$results/$1.log ok bad
  shift 2
  local code=125 try
  for try in 1 2 3; do
    tests/kvmlab/kvmlab run --timeout "$limit" --results "$results/$name" --env AGENT_DRIVER=firecracker \
      --env WRENN_VMM_DRIVERS=firecracker --env "WRENN_BUILDS=$builds" -- "$@" >"$log" 2>&1
    code=$?
    [ $code -ne 0 ] || break
    echo "firecracker, $name: not passed after $((SECONDS - began)) s (exit $code, machine $try of 3)"
    grep -aE "Kernel panic|kvmlab:|FAILED|^E  " "$log" | head -n 20
  done
  ok=$(sed -nE 's/^([0-9]+) passed, [0-9]+ failed$/\1/p; s/^\[  PASSED  \] ([0-9]+) tests?\.$/\1/p' "$log" | tail -n 1)
  bad=$(sed -nE 's/^[0-9]+ passed, ([0-9]+) failed$/\1/p; s/^ *([0-9]+) FAILED TESTS?$/\1/p' "$log" | tail -n 1)
  if [ $code -ne 0 ] || [ "${ok:-0}" -eq 0 ]; then
    [ "${bad:-0}" -gt 0 ] || bad=1
    tail -n 150 "$log"
  fi
  passed=$((passed + ${ok:-0})) failed=$((failed + ${bad:-0}))
  echo "firecracker, $name: ${ok:-0} passed, ${bad:-0} failed in $((SECONDS - began)) s (exit $code)"
}

[ $# -gt 0 ] || set -- drivers
for name in "$@"; do
  case $name in
    drivers) part drivers 300 "$build/src/vmm_tests" '--gtest_filter=All/*' ;;
    lifecycle) part lifecycle 400 tests/functional/run.sh tests/functional/test_lifecycle.py ;;
    *) echo "run.sh: no part $name" >&2; failed=$((failed + 1)) ;;
  esac
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
