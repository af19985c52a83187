#!/usr/bin/env bash
# Cuts the power of a machine of the KVM lab right after a pause was answered, starts another on the same disk, and
# looks at what is left (powercut.py). Prints "N passed, N failed" as its last line, one for each file system.
#
# usage: powercut.sh [ext4] [xfs]
#   WRENN_BUILDS  holds the programs (builds/)
set -uo pipefail
cd "$(dirname "$0")/../.."
builds=${WRENN_BUILDS:-$PWD/builds}
scripts/install-firecracker.sh && . tests/venv.sh && [ -n "$venv" ] || { echo "0 passed, 1 failed"; exit 1; }
folder=$(mktemp -d "${WRENN_DIR:-/var/lib/wrenn}/powercut-XXXXXX")
trap 'rm -rf "$folder"' EXIT

# machine FS PHASE: runs a phase; its exit status is the phase's.
machine() {
  tests/kvmlab/kvmlab run --timeout 400 --memory 3072 --disk "$folder/$1.disk" --env "WRENN_BUILDS=$builds" -- \
    "$venv/bin/python" -B tests/kvmlab/powercut.py "$2" "$1"
}
# The machine that is cut ends before its command, as a panic of the lab's own kernel would; it says when it means to.
cut_power() {
  local try
  for try in 1 2; do
    rm -f "$folder/$1.disk"
    machine "$1" before 2>&1 | tee "$folder/$1.log"
    ! grep -q "^the power of $1 is cut now" "$folder/$1.log" || return 0
    ! grep -q "^Traceback" "$folder/$1.log" || return 1
    echo "powercut: machine $try of 2 ended early"
  done
  return 1
}
[ $# -gt 0 ] || set -- ext4 xfs
passed=0
for fs in "$@"; do
  if cut_power "$fs" && machine "$fs" after; then passed=$((passed + 1)); else echo "powercut: $fs failed"; fi
  rm -f "$folder/$fs.disk"
done
echo "$passed passed, $(($# - passed)) failed"
[ $passed -eq $# ]
