#!/usr/bin/env bash
# Installs the Debian packages named in scripts/packages.txt that are missing.
set -euo pipefail
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive

wanted=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' packages.txt)
missing=()
for package in $wanted; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "packages: all present"
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "packages: missing: ${missing[*]}; run 'sudo make deps' to install them" >&2
  exit 1
fi
echo "packages: installing ${#missing[@]} missing"
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
