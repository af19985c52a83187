#!/usr/bin/env bash
# Makes what a guest boots from, below WRENN_DIR (/var/lib/wrenn):
#   kernels/{bzImage,vmlinux,initramfs.cpio.gz,digest}   by scripts/guest-kernel.sh
#   images/minimal/rootfs.ext4                           by scripts/guest-image.sh
# What is there already and made from the same inputs is kept, so a second run takes no time and no network.
#
# usage: build-guest.sh [--dir DIR] [--envd PATH] [--init PATH] [--update]
#   --envd PATH  guest agent baked into the image (builds/envd)
#   --init PATH  first program of the initramfs (builds/guest/wrenn_initramfs_init)
#   --update     look for a newer kernel package and newer packages in the image
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
dir=${WRENN_DIR:-/var/lib/wrenn}
envd=$repo/builds/envd
init=$repo/builds/guest/wrenn_initramfs_init
update=()

usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; }
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    --envd) envd=${2:?--envd needs a file}; shift 2 ;;
    --init) init=${2:?--init needs a file}; shift 2 ;;
    --update) update=(--update); shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "build-guest: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
done
for file in "$envd" "$init"; do
  [ -f "$file" ] || { echo "build-guest: $file is missing; run 'make build' first" >&2; exit 1; }
done
if [ "$(id -u)" -ne 0 ]; then
  echo "build-guest: needs root (it unpacks a root filesystem with its owners)" >&2
  exit 1
fi

mkdir -p "$dir/kernels" "$dir/images/minimal"
# One build at a time.
exec 9>"$dir/.build-guest.lock"
flock -n 9 || { echo "build-guest: waiting for another build"; flock 9; }

"$repo/scripts/guest-kernel.sh" --out "$dir/kernels" --init "$init" "${update[@]}"
"$repo/scripts/guest-image.sh" --out "$dir/images/minimal" --envd "$envd" "${update[@]}"
echo "guest: ready below $dir"
