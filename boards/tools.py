"""The open tools for Xilinx chips: nextpnr, Project X-Ray and its database, from Debian's packages, without root.

    python -m boards.tools            (``make tools``)

Tools on the path are taken as they are. Otherwise the packages of Debian sid and the libraries they need are fetched
with apt (which checks signatures and checksums and resumes what was cut off), unpacked into ``build/tools`` and started
with the loader and the libraries that came with them: the system is not changed. About 40 MB to fetch, 750 MB on disk.

``DEBIAN_MIRROR`` names another mirror than that of the system's own package lists.
"""
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

FOLDER = Path("build") / "tools"
#: Packages, and the commands of them that are used.
PACKAGES = ("nextpnr-himbaechel-xilinx", "nextpnr-himbaechel-xilinx-chipdb", "prjxray", "prjxray-database")
COMMANDS = ("nextpnr-himbaechel-xilinx", "xc7frames2bit", "bitread")
#: Versions that the results in docs/results were made with.
TRIED = {"nextpnr-himbaechel-xilinx": "0.11.1+dfsg-5+b1",
         "prjxray": "0.1+git3356.gc9f02d85+~db20211214.g0a0added-4"}
SUITE = "sid"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DATABASE = Path("usr/share/prjxray/database")


class ToolError(RuntimeError):
    """A tool is missing or cannot be fetched; the message says what to do."""


@dataclass(frozen=True)
class Tools:
    """``path``: what PATH has to be; ``database``: the folder with Project X-Ray's families."""
    path: str
    database: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment to run the tools in."""
        return os.environ | {"PATH": self.path}


def find_tools() -> Tools:
    """The tools on the path or in ``build/tools``; :class:`ToolError` if there are none."""
    system = Path("/") / DATABASE
    if all(shutil.which(command) for command in COMMANDS) and system.is_dir():
        return Tools(os.environ["PATH"], system)
    prefix = FOLDER.resolve()
    if (prefix / ".complete").exists():
        return Tools(f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}", prefix / "root" / DATABASE)
    raise ToolError("nextpnr-himbaechel-xilinx and prjxray are missing; run `make tools`")


def install_tools(console: Console) -> Tools:
    """:func:`find_tools`, fetching into ``build/tools`` what is not there."""
    try:
        return find_tools()
    except ToolError:
        pass
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            raise ToolError(f"{command} is missing, so Debian's packages cannot be fetched; install nextpnr "
                            "(himbaechel, xilinx) and prjxray with its database yourself and put "
                            f"{', '.join(COMMANDS)} on the path")
    if not KEYRING.exists():
        raise ToolError(f"{KEYRING} is missing; install it: sudo apt-get install debian-archive-keyring")
    environment = _configure_apt(FOLDER.resolve())
    with console.status("reading Debian's package lists"):
        _run(["apt-get", "update", "-q"], environment)
    _fetch(environment, console)
    _unpack(FOLDER.resolve(), console)
    _write_commands(FOLDER.resolve())
    (FOLDER / ".complete").touch()
    return find_tools()


def _run(command, environment):
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines()
        raise ToolError("\n".join([f"`{' '.join(map(str, command))}` failed:", *lines[-8:]]))
    return result.stdout


def _mirror():
    """Address of a Debian archive: ``DEBIAN_MIRROR``, else the first of the system's own package lists."""
    if os.environ.get("DEBIAN_MIRROR"):
        return os.environ["DEBIAN_MIRROR"].rstrip("/")
    text = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
                          capture_output=True, text=True).stdout
    for line in text.splitlines():
        if line.rstrip("/").endswith("/debian"):
            return line.rstrip("/")
    raise ToolError("the package lists of this system name no Debian archive; name one: "
                    "DEBIAN_MIRROR=http://.../debian make tools")


def _configure_apt(prefix):
    """Give apt a state of its own below ``prefix``; returns the environment that makes it use that."""
    for folder in ("apt/lists/partial", "apt/cache/archives/partial"):
        (prefix / folder).mkdir(parents=True, exist_ok=True)
    (prefix / "apt/status").touch()
    (prefix / "apt/sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n")
    (prefix / "apt/apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in {
        "Dir::State": f"{prefix}/apt", "Dir::State::status": f"{prefix}/apt/status",
        "Dir::Cache": f"{prefix}/apt/cache",
        "Dir::Etc::sourcelist": f"{prefix}/apt/sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null", "APT::Sandbox::User": "", "APT::Architecture": "amd64",
        "APT::Architectures": "amd64", "APT::Install-Recommends": "false", "Acquire::Languages": "none",
        "Acquire::Retries": "3"}.items()))
    return os.environ | {"APT_CONFIG": f"{prefix}/apt/apt.conf", "DEBIAN_FRONTEND": "noninteractive"}


def _fetch(environment, console):
    """Download the packages and all they depend on, with a bar."""
    simulated = _run(["apt-get", "install", "--print-uris", "-qq", "-y", *PACKAGES], environment)
    total = sum(int(line.split()[2]) for line in simulated.splitlines())
    archives = FOLDER / "apt/cache/archives"
    command = ["apt-get", "install", "--download-only", "-qq", "-y", *PACKAGES]
    with Progress(TextColumn("fetching packages"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                  TimeElapsedColumn(), console=console) as progress, \
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             text=True) as process:
        task = progress.add_task("", total=total)
        while True:
            try:
                _, errors = process.communicate(timeout=0.3)
                break
            except subprocess.TimeoutExpired:
                # Files that were there before are not to be fetched again; sizes are enough for a bar.
                sizes = [path.stat().st_size for path in archives.rglob("*") if path.is_file()]
                progress.update(task, completed=min(total, sum(sizes)))
        progress.update(task, completed=total)
    if process.returncode:
        raise ToolError("apt-get could not fetch the packages:\n" + "\n".join(errors.strip().splitlines()[-8:]))


def _unpack(prefix, console):
    root = prefix / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    packages = sorted((prefix / "apt/cache/archives").glob("*.deb"))
    with Progress(TextColumn("unpacking packages"), BarColumn(), TimeElapsedColumn(), console=console) as progress:
        for package in progress.track(packages):
            _run(["dpkg-deb", "--extract", str(package), str(root)], os.environ)
    for name, version in TRIED.items():
        found = next((package.name.split("_")[1] for package in packages if package.name.startswith(f"{name}_")), None)
        if found is None or found.replace("%7e", "~").replace("%3a", ":") != version:
            console.print(f"note: {name} is {found}; the published results were made with {version}")


def _write_commands(prefix):
    """A command for each tool: it starts the package's program with the loader and libraries that came with it.

    The loader lies next to the programs: they look for their data relative to the file that runs.
    """
    root, commands = prefix / "root", prefix / "bin"
    commands.mkdir(exist_ok=True)
    shutil.copyfile(root / "usr/lib64/ld-linux-x86-64.so.2", root / "usr/bin/ld.so")
    (root / "usr/bin/ld.so").chmod(0o755)
    for name in COMMANDS:
        script = commands / name
        script.write_text(
            f"#!/bin/sh\nroot={root}\nPYTHONHOME=$root/usr exec $root/usr/bin/ld.so "
            f"--library-path $root/usr/lib/x86_64-linux-gnu --argv0 {name} $root/usr/bin/{name} \"$@\"\n")
        script.chmod(0o755)


def main():
    """Fetch what is missing and say where the tools are."""
    console = Console()
    try:
        tools = install_tools(console)
    except ToolError as error:
        console.print(str(error), markup=False)
        sys.exit(2)
    for name in COMMANDS:
        console.print(f"{name}: {shutil.which(name, path=tools.path)}", soft_wrap=True)
    console.print(f"database: {tools.database}", soft_wrap=True)


if __name__ == "__main__":
    main()
