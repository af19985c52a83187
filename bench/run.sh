#!/usr/bin/env bash
# All benchmarks; arguments go to bench/lifecycle.
set -euo pipefail
exec "$(dirname "$0")/lifecycle" "$@"
