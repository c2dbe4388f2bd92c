"""Trained networks that come in PyPI packages, as ``compiler.graph.Network``.

``hed``: an edge detector on the 13 convolutions of VGG-16. ``digits``: a recogniser of handwritten digits.
"""
import hashlib
from pathlib import Path

from ..images import package_file


def weight_file(package: str, path: str, sha256: str) -> Path:
    """Where the weight file of an installed package lies; ``ValueError`` if its content is not the expected one."""
    found = package_file(package, path)
    digest = hashlib.sha256(found.read_bytes()).hexdigest()
    if digest != sha256:
        raise ValueError(f"{path} of the package {package} has sha256 {digest}, expected {sha256}: "
                         "run `make setup` in a fresh .venv")
    return found
