#!/usr/bin/env bash
# Runs tests with Firecracker in the KVM lab, one machine more at a time than there are processors, since tests also
# wait. Prints "N passed, N failed" as its last line.
#
# usage: run.sh [PART...]     without names: lifecycle and drivers
#   drivers       the drivers' conformance suite
#   lifecycle     a sandbox's life through REST, and a pause by itself
#   powercut      a machine whose power is cut right after a pause, on ext4 and on XFS
#   kills, faults, rest
#                 all of tests/faults and tests/functional: the kills, other faults with what waits much, all else
#                 Left out is what takes minutes here and tells nothing new: a thousand processes in one guest, and the
#                 second moment of each kill of agent and control plane.
#   WRENN_BUILD   build folder of the unit tests (build/release)
#   WRENN_BUILDS  holds the programs (builds/)
#
# A test that fails is a failure. Only a machine that ends before its summary (QEMU's emulation of SVM has panicked the
# lab's kernel before) is said to and replaced, once.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${WRENN_BUILD:-$PWD/build/release}
builds=${WRENN_BUILDS:-$PWD/builds}
results=build/kvmlab
mkdir -p "$results"
scripts/install-firecracker.sh && . tests/venv.sh && [ -n "$venv" ] || { echo "0 passed, 1 failed"; exit 1; }

# Of tests/functional/run.sh and of gtest.
passed_of() { sed -nE 's/^([0-9]+) passed, [0-9]+ failed$/\1/p; s/^\[  PASSED  \] ([0-9]+) tests?\.$/\1/p' "$1" | tail -n 1; }
failed_of() { sed -nE 's/^[0-9]+ passed, ([0-9]+) failed$/\1/p; s/^ *([0-9]+) FAILED TESTS?$/\1/p' "$1" | tail -n 1; }

powercut() {
  local began=$SECONDS log=$results/powercut.log ok bad
  tests/kvmlab/powercut.sh >"$log" 2>&1
  ok=$(passed_of "$log") bad=$(failed_of "$log")
  [ "${bad:-1}" -eq 0 ] || tail -n 150 "$log"
  echo "firecracker, powercut: ${ok:-0} passed, ${bad:-1} failed in $((SECONDS - began)) s"
  echo "${ok:-0} ${bad:-1}" >"$results/powercut.count"
}
# part NAME SECONDS COMMAND...
part() {
  local name=$1 limit=$2 began=$SECONDS log=$results/$1.log try ok bad code
  shift 2
  for try in 1 2; do
    tests/kvmlab/kvmlab run --timeout "$limit" --results "$results/$name" --env AGENT_DRIVER=firecracker \
      --env WRENN_VMM_DRIVERS=firecracker --env WRENN_TEST_HOSTS=1 --env "WRENN_BUILDS=$builds" -- "$@" >"$log" 2>&1
    code=$?
    ok=$(passed_of "$log") bad=$(failed_of "$log")
    [ -z "$ok$bad" ] || break
    echo "firecracker, $name: machine $try of 2 ended early, after $((SECONDS - began)) s (exit $code)"
    grep -aE "Kernel panic|kvmlab:" "$log" | head -n 20
  done
  if [ $code -ne 0 ] || [ "${ok:-0}" -eq 0 ]; then
    [ "${bad:-0}" -gt 0 ] || bad=1
    tail -n 150 "$log"
  fi
  echo "firecracker, $name: ${ok:-0} passed, ${bad:-0} failed in $((SECONDS - began)) s (exit $code)"
  echo "${ok:-0} ${bad:-0}" >"$results/$name.count"
}
pytest=(tests/functional/run.sh --timeout 300 --durations 40 --deselect functional/test_abuse.py::test_a_thousand_processes)
for each in wrenn-agent wrenn-cp both; do
  pytest+=(--deselect "faults/test_kill.py::test_program_killed[$each-0.35]")
done
waiting=(tests/functional/test_{auto_pause,postgres,proxy}.py)

[ $# -gt 0 ] || set -- lifecycle drivers
for name in "$@"; do
  case $name in drivers | lifecycle | powercut | rest | faults | kills) ;; *) echo "run.sh: no part $name" >&2; exit 2 ;; esac
done
for name in "$@"; do
  rm -f "$results/$name.count"
  while [ "$(jobs -pr | wc -l)" -gt "$(nproc)" ]; do wait -n; done
  case $name in
    drivers) part drivers 500 "$build/src/vmm_tests" --gtest_filter='All/*' & ;;
    lifecycle) part lifecycle 700 "${pytest[@]}" tests/functional/test_lifecycle.py \
      tests/functional/test_auto_pause.py::test_an_idle_sandbox_is_paused_and_its_row_follows & ;;
    powercut) powercut & ;;
    kills) part kills 1500 "${pytest[@]}" tests/faults/test_kill.py & ;;
    faults) part faults 1500 "${pytest[@]}" $(ls tests/faults/test_*.py | grep -v test_kill) "${waiting[@]}" & ;;
    rest) part rest 1500 "${pytest[@]}" $(ls tests/functional/test_*.py | grep -vxFf <(printf '%s\n' "${waiting[@]}")) & ;;
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
