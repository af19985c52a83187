#!/usr/bin/env bash
# Makes the base image of the template "minimal": Debian with python3, git, curl, bash and sudo, the user `user`
# (uid 1000, passwordless sudo) and the guest agent, as one read-only ext4 file.
#
# usage: guest-image.sh --out DIR --envd PATH [--update]
# WRENN_DEBIAN_MIRROR names another package mirror.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suite=bookworm
packages=(bash ca-certificates curl git iproute2 procps python3 sudo)
spare_mib=64

out='' envd='' update=0
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --envd) envd=$2; shift 2 ;;
    --update) update=1; shift ;;
    *) echo "guest-image: unknown argument $1" >&2; exit 2 ;;
  esac
done
: "${out:?--out DIR is needed}" "${envd:?--envd PATH is needed}"

say() { echo "guest image: $*"; }
image=$out/rootfs.ext4
inputs=$(cat "$0" | sha256sum | cut -d' ' -f1)
agent=$(sha256sum "$envd" | cut -d' ' -f1)

if [ $update -eq 0 ] && [ -s "$image" ] && [ "$(cat "$out/inputs" 2>/dev/null)" = "$inputs" ]; then
  if [ "$(cat "$out/envd.sha256" 2>/dev/null)" = "$agent" ]; then
    say "up to date"
  else
    "$here/update-debug-rootfs.sh" "$image" "$envd"
  fi
  exit 0
fi

work=$(mktemp -d "$out/.build-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

say "installing Debian $suite with ${packages[*]} (about a minute)"
# No documentation, translations or package lists: they only make the image bigger.
mmdebstrap --quiet --mode=root --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
  --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/share/info/*' \
  "$suite" "$root" ${WRENN_DEBIAN_MIRROR:+"$WRENN_DEBIAN_MIRROR"} >"$work/log" 2>&1 || {
  tail -n 20 "$work/log" >&2
  echo "guest-image: mmdebstrap failed" >&2
  exit 1
}

say "adding the user and the guest agent"
chroot "$root" useradd --create-home --uid 1000 --user-group --shell /bin/bash user
install -m 0440 /dev/stdin "$root/etc/sudoers.d/user" <<<'user ALL=(ALL) NOPASSWD: ALL'
ln -sf python3 "$root/usr/bin/python"
echo sandbox >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 sandbox\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
rm -f "$root/etc/resolv.conf" "$root/etc/machine-id"
: >"$root/etc/machine-id"
install -D -m 0755 "$envd" "$root/usr/local/bin/envd"
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/tmp/*

say "writing the ext4 file"
used_mib=$(du -sm --apparent-size "$root" | cut -f1)
blocks_mib=$(du -sm "$root" | cut -f1)
size_mib=$(((used_mib > blocks_mib ? used_mib : blocks_mib) * 108 / 100 + spare_mib))
# Read-only for ever: no journal, no reserved blocks.
mke2fs -q -t ext4 -O ^has_journal,^resize_inode -E lazy_itable_init=0,root_owner=0:0 -m 0 -N $((size_mib * 128)) \
  -L wrenn-minimal -d "$root" "$work/rootfs.ext4" "${size_mib}M"
chmod 0644 "$work/rootfs.ext4"
sync "$work/rootfs.ext4"
rm -f "$out/inputs"
mv -f "$work/rootfs.ext4" "$image"
printf '%s\n' "$agent" >"$out/envd.sha256"
printf '%s\n' "$inputs" >"$out/inputs"
say "$image, ${size_mib} MiB"
