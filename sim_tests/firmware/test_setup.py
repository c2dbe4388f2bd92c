"""``boards/sim/setup.sh firmware``: what is missing is installed, or named; never passed over."""
import shutil
import subprocess

import pytest

from .c_programs import ROOT

PACKAGES = ("gcc libc6-dev gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static qemu-system-arm "
            "gcc-arm-none-eabi device-tree-compiler")


def write_command(folder, name, *lines):
    """A command in ``folder`` that runs the shell ``lines``."""
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


@pytest.fixture
def path(tmp_path):
    """The only folder of PATH: it has what the script itself uses, and none of the tools."""
    for name in ("sh", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    write_command(tmp_path, "id", "echo 0")
    return tmp_path


def setup(path, *arguments):
    return subprocess.run([ROOT / "boards/sim/setup.sh", *arguments], env={"PATH": str(path)}, capture_output=True,
                          text=True)


@pytest.mark.parametrize("user", ["not root", "no apt-get"])
def test_packages_are_named_where_they_cannot_be_installed(path, user):
    if user == "not root":
        write_command(path, "id", "echo 1000")
        write_command(path, "apt-get", "echo never >&2")
    result = setup(path, "firmware")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == ("setup: What the tests of the drivers need is missing; install it (Debian, Ubuntu: sudo "
                             f"apt-get install {PACKAGES}) and run make again\n")


def test_root_installs_what_is_missing_and_no_more(path):
    write_command(path, "apt-get", f'echo "$@" >> {path}/log')
    # A compiler whose C library is not there, and one that is complete.
    write_command(path, "gcc", 'echo "libc.a"')
    (path / "libc.a").touch()
    write_command(path, "arm-linux-gnueabihf-gcc", f'echo "{path}/libc.a"')
    write_command(path, "qemu-system-arm", "")
    result = setup(path, "firmware")
    assert result.returncode == 0, result.stderr
    update, install = (path / "log").read_text().splitlines()
    assert update == "update -qq"
    assert install == ("install -y -qq --no-install-recommends gcc libc6-dev qemu-user-static gcc-arm-none-eabi "
                       "device-tree-compiler")


def test_an_installation_that_fails_is_reported(path):
    write_command(path, "apt-get", "exit 100")
    result = setup(path, "firmware")
    assert result.returncode == 2 and f"setup: apt-get could not install {PACKAGES}; " in result.stderr


def test_an_unknown_part_is_refused(path):
    result = setup(path, "firmwear")
    assert result.returncode == 2 and "there is no part firmwear" in result.stderr
