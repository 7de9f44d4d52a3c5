# Sourced by the benches that stand beside Python programs: `venv_of NAME FOLDER` makes the virtual environment `NAME-venv` in the
# target folder with what FOLDER/requirements.txt names, unless it is there, and says its path in $venv.

target="${CARGO_TARGET_DIR:-target}"

venv_of() {
    local wanted="$2/requirements.txt"
    venv="$target/$1-venv"
    mkdir -p "$target"
    if ! cmp -s "$wanted" "$venv/installed.txt"; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$wanted"
        cp "$wanted" "$venv/installed.txt"
    fi
}
