# Sourced from the repository's top: makes build/venv with tests/requirements.txt, and again when those change.
venv=build/venv
wanted=$(sha256sum tests/requirements.txt | cut -d' ' -f1)
if [ "$(cat "$venv/.requirements" 2>/dev/null)" != "$wanted" ]; then
  mkdir -p build
  python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt || {
    echo "cannot make $venv (python3-venv and a package index are needed)" >&2
    venv=
  }
  [ -z "$venv" ] || echo "$wanted" >"$venv/.requirements"
fi
