#!/usr/bin/env bash
# Bakes a guest agent into a base image without mounting it. The new image is a new file put in place by rename:
# running VMs keep the old one.
#
# usage: update-debug-rootfs.sh IMAGE [ENVD]      (ENVD: builds/envd)
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
image=${1:?usage: update-debug-rootfs.sh IMAGE [ENVD]}
envd=${2:-$repo/builds/envd}
target=/usr/local/bin/envd
for file in "$image" "$envd"; do
  [ -f "$file" ] || { echo "update-debug-rootfs: $file is missing" >&2; exit 1; }
done

work=$(mktemp -d "$(dirname "$image")/.update-XXXXXX")
trap 'rm -rf "$work"' EXIT
cp --sparse=always --reflink=auto "$image" "$work/rootfs.ext4"
cp "$envd" "$work/envd"
agent=$(sha256sum "$work/envd" | cut -d' ' -f1)

# mkdir of an existing folder would damage the file system, so only the missing ones are made.
missing=''
for folder in /usr /usr/local /usr/local/bin; do
  debugfs -R "stat $folder" "$image" 2>/dev/null | grep -q 'Type: directory' || missing+="mkdir $folder"$'\n'
done
# debugfs reports errors on its output only, so the result is read back and compared.
debugfs -w -f /dev/stdin "$work/rootfs.ext4" >"$work/log" 2>&1 <<COMMANDS
$missing
rm $target
write $work/envd $target
set_inode_field $target mode 0100755
set_inode_field $target uid 0
set_inode_field $target gid 0
COMMANDS
debugfs -R "dump $target $work/written" "$work/rootfs.ext4" >>"$work/log" 2>&1
if [ "$(sha256sum "$work/written" 2>/dev/null | cut -d' ' -f1)" != "$agent" ]; then
  cat "$work/log" >&2
  echo "update-debug-rootfs: could not write $target into $image (full?); it is unchanged" >&2
  exit 1
fi
if ! e2fsck -fn "$work/rootfs.ext4" >>"$work/log" 2>&1; then
  tail -n 20 "$work/log" >&2
  echo "update-debug-rootfs: the changed image is not sound; $image is unchanged" >&2
  exit 1
fi
chmod 0644 "$work/rootfs.ext4"
sync "$work/rootfs.ext4"
mv -f "$work/rootfs.ext4" "$image"
printf '%s\n' "$agent" >"$(dirname "$image")/envd.sha256"
echo "guest image: $image has envd ${agent:0:12}"
