#!/usr/bin/env bash
# All benchmarks, with their defaults; arguments (say --json) go to each.
set -euo pipefail
cd "$(dirname "$0")"
./lifecycle "$@"
./dataplane "$@"
