#!/usr/bin/env bash
# Runs the tests on real VMs: tests/functional and tests/faults. Prints "N passed, N failed" as its last line.
#
# usage: run.sh [pytest arguments]
#   WRENN_TEST_DIR  holds kernels/ and images/ (default: WRENN_DIR, then /var/lib/wrenn)
#   WRENN_BUILDS    holds the programs (default: builds/)
#   WRENN_TEST_HOSTS  how many hosts test beside each other, each with its own agent (default: processors + 1, since
#                     some wait)
set -uo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
cd "$repo"
. tests/venv.sh
[ -n "$venv" ] || { echo "0 passed, 1 failed"; exit 1; }

mkdir -p build
report=build/functional.xml
rm -f "$report"
targets=(tests/faults tests/functional)  # the long ones first
for argument in "$@"; do
  case $argument in tests/*) targets=() ;; esac
done
hosts=${WRENN_TEST_HOSTS:-$(($(nproc) + 1))}
PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest -c tests/pytest.ini --rootdir tests --junitxml "$report" \
  --dist loadscope --no-loadscope-reorder --tx "$hosts*popen//python=$repo/tests/harness/own-host $repo/$venv/bin/python" \
  "${targets[@]}" "$@"
code=$?
"$venv/bin/python" - "$report" "$code" <<'PY'
import sys
import xml.etree.ElementTree as ElementTree
try:
    suite = ElementTree.parse(sys.argv[1]).getroot().find("testsuite")
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    passed = int(suite.get("tests")) - failed - int(suite.get("skipped"))
except (OSError, ElementTree.ParseError, AttributeError):
    passed, failed = 0, 1
if int(sys.argv[2]) != 0:
    failed = max(failed, 1)
print(f"{passed} passed, {failed} failed")
PY
exit "$code"
