"""Verilog of a component. The output depends on the sources alone: it has no dates and no paths.

``python -m hw.generate --config NAME -o FILE`` writes :class:`~hw.top.Top` of a named configuration.
"""
import argparse
import sys
from pathlib import Path

from amaranth.back import verilog

from .configs import CONFIGS, get_config


def verilog_text(component, name: str) -> str:
    """Verilog of ``component`` with a top module called ``name``. Ports are flattened: ``m_axi__arvalid``."""
    return verilog.convert(component, name=name, emit_src=False)


def generate_verilog(component, path, name: str) -> Path:
    """Write the Verilog of ``component``, with a top module called ``name``, to ``path``; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(verilog_text(component, name))
    return path


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m hw.generate", description="Write the Verilog of a configuration.")
    parser.add_argument("--config", required=True, metavar="NAME", help=f"one of {', '.join(CONFIGS)}")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", type=Path)
    options = parser.parse_args(arguments)
    try:
        config = get_config(options.config)
    except ValueError as error:
        parser.error(str(error))
    # Only the command needs the accelerator itself; the simulator takes any component with the same ports.
    from .top import Top
    generate_verilog(Top(config), options.output, f"zeroskip_{config.name}")


if __name__ == "__main__":
    sys.exit(main())
