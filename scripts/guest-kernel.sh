#!/usr/bin/env bash
# Makes the guest kernel folder: Debian's cloud kernel (downloaded and unpacked, never installed) as bzImage for
# QEMU and as ELF vmlinux for Firecracker, and an initramfs of our init and the modules it loads. `digest` names
# the pair; a memory snapshot loads only under the digest it was made with.
#
# usage: guest-kernel.sh --out DIR --init PATH [--update]
set -euo pipefail
metapackage=linux-image-cloud-amd64
# In the order init loads them: each after those it needs.
modules=(
  drivers/virtio/virtio_ring.ko drivers/virtio/virtio.ko drivers/virtio/virtio_mmio.ko
  drivers/block/virtio_blk.ko
  net/core/failover.ko drivers/net/net_failover.ko drivers/net/virtio_net.ko
  drivers/char/hw_random/virtio-rng.ko
  drivers/virtio/virtio_balloon.ko
  fs/overlayfs/overlay.ko
)
out='' init='' update=0
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --init) init=$2; shift 2 ;;
    --update) update=1; shift ;;
    *) echo "guest-kernel: unknown argument $1" >&2; exit 2 ;;
  esac
done
: "${out:?--out DIR is needed}" "${init:?--init PATH is needed}"

say() { echo "guest kernel: $*"; }
inputs=$(cat "$0" "$init" | sha256sum | cut -d' ' -f1)
digest_of() { cat "$1/bzImage" "$1/initramfs.cpio.gz" | sha256sum | cut -d' ' -f1; }

if [ $update -eq 0 ] && [ -s "$out/vmlinux" ] && [ "$(cat "$out/inputs" 2>/dev/null)" = "$inputs" ] &&
  [ "$(cat "$out/digest" 2>/dev/null)" = "$(digest_of "$out" 2>/dev/null)" ]; then
  say "up to date"
  exit 0
fi

work=$(mktemp -d "$out/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT

resolve() { apt-cache depends "$metapackage" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1; }
package=$(resolve)
if [ -z "$package" ] || [ $update -eq 1 ]; then
  say "reading package lists"
  apt-get update -qq
  package=$(resolve)
fi
[ -n "$package" ] || { echo "guest-kernel: apt knows no $metapackage" >&2; exit 1; }
say "downloading $package"
download() { (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package" >/dev/null); }
# Old lists may name a version the mirror no longer has.
download || { apt-get update -qq; package=$(resolve); download; }
say "unpacking"
dpkg-deb -x "$work"/*.deb "$work/tree"
bzimage=$(echo "$work"/tree/boot/vmlinuz-*)
modroot=$(echo "$work"/tree/lib/modules/*/kernel)

# The boot protocol's header says where the LZ4 stream lies (payload_offset, from the end of the set-up
# sectors) and its length, of which the last 4 bytes are the unpacked size.
header() { od -A n -t "u$2" -j "$1" -N "$2" "$bzimage" | tr -d ' '; }
start=$((($(header 497 1) + 1) * 512 + $(header 584 4)))
length=$(($(header 588 4) - 4))
tail -c "+$((start + 1))" "$bzimage" | head -c "$length" | lz4 -dc >"$work/vmlinux" 2>/dev/null || true
[ "$(head -c 4 "$work/vmlinux" | od -A n -t x1 | tr -d ' ')" = 7f454c46 ] || {
  echo "guest-kernel: no LZ4-packed ELF kernel in $package" >&2
  exit 1
}

say "packing the initramfs"
mkdir -p "$work/initramfs/modules" "$work/initramfs"/{dev,proc}
install -m 0755 "$init" "$work/initramfs/init"
for module in "${modules[@]}"; do
  name=$(basename "$module" .ko)
  cp "$modroot/$module" "$work/initramfs/modules/$name.ko"
  echo "$name" >>"$work/initramfs/modules/order"
done
# Same inputs, same bytes: fixed times and order, no inode numbers.
find "$work/initramfs" -exec touch -h -d @0 {} +
(cd "$work/initramfs" && find . -mindepth 1 | LC_ALL=C sort |
  cpio --quiet -o -H newc -R 0:0 --reproducible | gzip -n -9 >"$work/initramfs.cpio.gz")
cp "$bzimage" "$work/bzImage"
chmod 0644 "$work"/{bzImage,vmlinux,initramfs.cpio.gz}

digest=$(digest_of "$work")
# On the disk before they have their names, so that a power cut leaves no empty ones.
sync "$work"/{bzImage,vmlinux,initramfs.cpio.gz}
rm -f "$out/digest"
mv -f "$work"/{bzImage,vmlinux,initramfs.cpio.gz} "$out/"
printf '%s\n' "$inputs" >"$out/inputs"
# Last: it vouches for the others.
printf '%s\n' "$digest" >"$work/digest"
sync "$work/digest"
mv -f "$work/digest" "$out/digest"
say "$package, digest ${digest:0:12}"
