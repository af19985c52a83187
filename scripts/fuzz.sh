#!/usr/bin/env bash
# Builds the fuzzers of fuzz/ with AddressSanitizer and UndefinedBehaviorSanitizer and runs each for SECONDS, two
# at a time, from its kept corpus. What they find new is added to the corpus, minimised. 0 seconds: the corpus only.
#
# usage: fuzz.sh SECONDS [name...]
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz.sh SECONDS [name...]}
shift
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(http gzip multipart websocket connect json paths)
build=build/fuzz
mkdir -p "$build/artifacts"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DWRENN_SANITIZE=address,undefined -DWRENN_FUZZ=ON \
  -DWRENN_OUTPUT_DIR= >"$build.configure.log" 2>&1 || { cat "$build.configure.log"; exit 1; }
cmake --build "$build" -j "${JOBS:-$(nproc)}" --target "${names[@]/#/fuzz_}" || exit 1

fuzz_one() {
  local name=$1 work=$build/work-$1 log=$build/$1.log
  rm -rf "$work" && mkdir -p "$work"
  local limit=(-max_total_time="$seconds")
  [ "$seconds" -gt 0 ] || limit=(-runs=0)
  "$build/fuzz/fuzz_$name" "${limit[@]}" -timeout=20 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="$build/artifacts/$name-" "$work" "fuzz/corpus/$name" >"$log" 2>&1
  local code=$?
  if [ $code -eq 0 ] && [ "$seconds" -gt 0 ]; then
    "$build/fuzz/fuzz_$name" -merge=1 -max_len=4096 "fuzz/corpus/$name" "$work" >>"$log" 2>&1
  fi
  local runs
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | head -n1)
  echo "$name: exit $code, ${runs:-?} runs in $seconds s, $(find "fuzz/corpus/$name" -type f | wc -l) inputs kept"
  [ $code -eq 0 ] || tail -n 40 "$log"
  return $code
}

code=0
running=()
for name in "${names[@]}"; do
  fuzz_one "$name" &
  running+=($!)
  if [ ${#running[@]} -eq 2 ]; then
    wait "${running[0]}" || code=1
    running=("${running[1]}")
  fi
done
for pid in "${running[@]}"; do wait "$pid" || code=1; done
exit $code
