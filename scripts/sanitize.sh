#!/usr/bin/env bash
# Builds with a sanitizer in build/<name>, runs the unit tests and the functional ones with the programs of
# that build (the guests keep the release envd), and fails when a test fails or a sanitizer reports anything.
#
# usage: sanitize.sh address|thread [pytest arguments]
set -uo pipefail
cd "$(dirname "$0")/.."
kind=${1:-}
case $kind in
  address) flags=address,undefined ;;
  thread) flags=thread ;;
  *) echo "usage: sanitize.sh address|thread [pytest arguments]" >&2; exit 2 ;;
esac
shift
build=build/sanitize-$kind
reports=$PWD/$build/reports
mkdir -p "$reports"
rm -f "$reports"/*
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DWRENN_SANITIZE=$flags -DWRENN_OUTPUT_DIR= \
  >"$build.configure.log" 2>&1 || { cat "$build.configure.log"; exit 1; }
cmake --build "$build" -j "${JOBS:-$(nproc)}" || exit 1

# A small quarantine: tests measure memory.
export ASAN_OPTIONS=log_path=$reports/asan,quarantine_size_mb=16
export UBSAN_OPTIONS=log_path=$reports/ubsan,print_stacktrace=1
export TSAN_OPTIONS=log_path=$reports/tsan,history_size=4
code=0
scripts/run-tests.py --build "$build" unit || code=1
WRENN_BUILDS=$PWD/$build/bin tests/functional/run.sh "$@" || code=1
for report in "$reports"/*; do
  [ -s "$report" ] || continue
  echo "--- $report"
  head -n 60 "$report"
  code=1
done
exit $code
