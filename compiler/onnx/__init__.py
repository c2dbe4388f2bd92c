"""ONNX files to the float networks of compiler.model."""
from .load import load_proto
from .read import HostPart, read_proto
from .simplify import simplify
from .verify import largest_difference, run_file, run_host, tolerance

__all__ = ["HostPart", "largest_difference", "load_proto", "read_proto", "run_file", "run_host", "simplify",
           "tolerance"]
