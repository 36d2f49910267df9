#!/usr/bin/env bash
# Builds .venv from requirements.lock, without root and without touching any other Python.
#
# Done once: a stamp inside .venv holds what it was built from, so that later calls return at once.
# An interrupted run is repeated from the start, and two runs at once take turns. Package indexes are
# the user's affair: uv's and pip's own settings are respected and none is written here.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

VENV=.venv
STAMP=$VENV/.tandem-setup
BUSY=$VENV/.tandem-setup-busy
PYTHON=3.12
NEEDED_GB=7
PLUGINS=(policies/lerobot_policy_tandem sim/lerobot_env_tandem) # by these LeRobot's commands find Tandem

say() { printf 'set-up: %s\n' "$*"; }
die() {
    printf 'set-up: %s\n' "$@" >&2
    exit 1
}

# What .venv was built from. The path counts too: console scripts and the editable install hold it.
recipe() { pwd -P && cat requirements.lock pyproject.toml "${PLUGINS[@]/%//pyproject.toml}"; }

ready() { [[ -x $VENV/bin/tandem && ! -e $BUSY ]] && recipe | cmp -s - "$STAMP" && runs "$VENV/bin/python"; }

# A python3.12 on PATH may be a pyenv shim that fails when run, so every candidate is tried.
runs() { "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$PYTHON')" >/dev/null 2>&1; }

candidates() {
    local name root found
    for name in "python$PYTHON" python3 python; do
        found=$(command -v "$name") && echo "$found"
    done
    root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}
    printf '%s\n' "$root/versions/$PYTHON".*/bin/"python$PYTHON" | sort -rV
}

find_python() {
    local candidate
    while IFS= read -r candidate; do
        if runs "$candidate"; then
            # the interpreter itself: a shim depends on the folder, and an active .venv may be replaced
            "$candidate" -c 'import sys; print(sys._base_executable)'
            return
        fi
    done < <(candidates)
    return 1
}

# uv from PATH, else from an earlier .venv, else fetched by any Python's pip into a folder of its own.
find_uv() {
    local candidate
    for candidate in uv "$VENV/bin/uv" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
        if "$candidate" --version >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fetch_uv "$1" || fetch_uv "$(command -v python3 || true)"
}

fetch_uv() {
    local python=$1 log=$TEMP/fetch-uv.log pin
    [[ -n $python ]] || return 1
    pin=$(grep -m1 '^uv==' requirements.lock)
    say "fetching $pin with $python" >&2
    # --target is allowed where a system Python forbids pip (PEP 668): nothing of the system's changes
    if { "$python" -m venv "$TEMP/uv" && "$TEMP/uv/bin/python" -m pip install "$pin"; } >"$log" 2>&1; then
        echo "$TEMP/uv/bin/uv"
    elif "$python" -m pip install --target "$TEMP/uv-target" "$pin" >>"$log" 2>&1; then
        echo "$TEMP/uv-target/bin/uv"
    else
        tail -n 3 "$log" >&2
        return 1
    fi
}

# uv reads none of pip's settings: hand over those that decide whether packages can be reached at all,
# and trust the certificates that this machine trusts, as pip and curl do (company networks need it).
share_settings_with_uv() {
    if [[ -n ${PIP_INDEX_URL:-} && -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then
        export UV_DEFAULT_INDEX=$PIP_INDEX_URL
    fi
    [[ -z ${SSL_CERT_FILE:-}${UV_SYSTEM_CERTS:-}${UV_NATIVE_TLS:-} ]] || return 0
    if [[ -s ${PIP_CERT:-} ]]; then
        export SSL_CERT_FILE=$PIP_CERT
    elif [[ -s /etc/ssl/certs/ca-certificates.crt || -s /etc/pki/tls/certs/ca-bundle.crt || $OSTYPE == darwin* ]]; then
        export UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true # the same switch in newer and older uv
    fi
}

say_what_is_missing() {
    die "found no way to get Python packages. Any one of these helps:" \
        "  - install uv (one file in your home, no root): https://docs.astral.sh/uv/" \
        "  - sudo apt install python3-venv    (gives the system's Python a private pip)" \
        "  - install Python $PYTHON with pyenv:  pyenv install $PYTHON" \
        "If pip was there but could not download, check its settings (pip config list) and the network."
}

say_no_python() {
    die "found no working Python $PYTHON, and uv could not download one. Any one of these helps:" \
        "  - pyenv install $PYTHON" \
        "  - sudo apt install python$PYTHON    (Ubuntu 24.04 and later)" \
        "  - UV_PYTHON_INSTALL_MIRROR=... make setup    (a mirror that this machine can reach)"
}

# Renamed first, so that an interruption leaves either a whole folder or none.
discard() {
    rm -rf -- "$1.old"
    [[ ! -e $1 ]] || mv -- "$1" "$1.old"
    rm -rf -- "$1.old"
}

warn_if_disk_is_short() {
    local free_gb
    free_gb=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1048576))
    ((free_gb >= NEEDED_GB)) || say "only $free_gb GB free here; packages need up to $NEEDED_GB GB (less if uv has them cached)"
}

build() {
    local python uv
    share_settings_with_uv
    python=$(find_python || true)
    uv=$(find_uv "$python") || say_what_is_missing
    if [[ -z $python ]]; then
        say "no working python$PYTHON on PATH nor in pyenv: asking uv for one"
        "$uv" python install "$PYTHON" || say_no_python
        python=$("$uv" python find "$PYTHON") || say_no_python
    fi
    if [[ -e $BUSY ]] || ! runs "$VENV/bin/python"; then
        if [[ $uv -ef $VENV/bin/uv ]]; then # it is about to be replaced
            cp -- "$uv" "$TEMP/uv-copy" && uv=$TEMP/uv-copy
        fi
        discard "$VENV"
        warn_if_disk_is_short
        say "making $VENV with $python: about 6 GB, minutes from the network, half a minute from uv's cache"
        "$uv" venv --quiet --python "$python" "$VENV"
    fi
    touch "$BUSY"
    rm -f -- "$STAMP"
    say "installing requirements.lock"
    "$uv" pip install --python "$VENV/bin/python" --no-deps -r requirements.lock ||
        die "packages could not be installed. If the network is the reason: an index or mirror goes into UV_DEFAULT_INDEX or PIP_INDEX_URL."
    "$uv" pip install --quiet --python "$VENV/bin/python" --no-deps --editable . "${PLUGINS[@]/#/--editable=./}" ||
        die "Tandem itself could not be installed."
    "$VENV/bin/tandem" --version >/dev/null || die "the tandem command does not start."
    recipe >"$STAMP"
    rm -f -- "$BUSY"
    say "done. Try: make demo    (or: source $VENV/bin/activate; tandem --help)"
}

ready && exit 0
if command -v flock >/dev/null; then # macOS has none: there, do not start two at once
    exec 9<.
    flock --nonblock 9 || { say "another set-up is at work here, waiting for it" && flock 9; }
fi
ready && exit 0
TEMP=$(mktemp -d)
trap 'rm -rf -- "$TEMP"' EXIT
build
