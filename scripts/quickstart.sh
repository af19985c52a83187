#!/usr/bin/env bash
# Starts Wrenn on this machine and shows a sandbox at work, each step with its time. Leaves the service running;
# with QUICKSTART_STOP=1 it stops it again.
set -euo pipefail
cd "$(dirname "$0")/.."
wrenn=$PWD/builds/wrenn
began=$(date +%s%N)

now_ms() { echo $(($(date +%s%N) / 1000000)); }
# step WHAT COMMAND...: runs it, shows its time and its output, indented.
step() {
  local what=$1 start out
  shift
  start=$(now_ms)
  if ! out=$("$@" 2>&1); then
    printf '%-58s FAILED\n%s\n' "$what" "$out" >&2
    exit 1
  fi
  printf '%-58s %6d ms\n' "$what" $(($(now_ms) - start))
  [ -z "$out" ] || sed 's/^/    /' <<<"$out"
  last=$out
}
inside() { "$wrenn" exec "$id" -- /bin/sh -c "$1"; }

if [ "$(id -u)" -ne 0 ]; then
  echo "quickstart: VMs and networks need root: sudo make quickstart" >&2
  exit 1
fi
echo "== service"
if "$wrenn" -q doctor --json 2>/dev/null | grep -q '"name":"API key","status":"ok"'; then
  echo "already running"
else
  "$wrenn" up --detach
fi

echo "== demo"
step "create a sandbox" "$wrenn" -q create
id=$last
step "python in it" inside 'python3 -c "import platform; print(platform.platform())"'
step "write a file" inside 'echo "hello from before the pause" > /root/note; cat /root/note'
step "start a counter in the background" inside \
  'nohup sh -c "while :; do n=\$((n+1)); echo \$n > /tmp/count; sleep 0.1; done" >/dev/null 2>&1 & echo $! > /tmp/counter.pid; sleep 1; echo "process $(cat /tmp/counter.pid) counted to $(cat /tmp/count)"'
before=${last##* }
step "pause: memory and disk are saved, the VM is gone" "$wrenn" -q pause "$id"
step "resume" "$wrenn" -q resume "$id"
step "the same file" inside 'cat /root/note'
step "the same process, counting on" inside \
  'sleep 1; kill -0 $(cat /tmp/counter.pid) && echo "process $(cat /tmp/counter.pid) counted to $(cat /tmp/count)"'
after=${last##* }
if [ "$after" -le "$before" ]; then
  echo "quickstart: the counter did not go on ($before, then $after)" >&2
  exit 1
fi
step "destroy" "$wrenn" -q rm "$id"
printf 'demo done, %d s in all\n' $((($(date +%s%N) - began) / 1000000000))

if [ "${QUICKSTART_STOP:-}" = 1 ]; then
  "$wrenn" -q down
  exit 0
fi
cat <<'TEXT'

The service goes on in the background. The key is in ~/.config/wrenn/credentials; with curl:

  . ~/.config/wrenn/credentials
  curl -s -X POST "$WRENN_BASE_URL/v1/sandboxes" -H "X-API-Key: $WRENN_API_KEY" -d '{"template":"minimal"}'

More: builds/wrenn --help. Stop it with: builds/wrenn down
TEXT
