"""Driver for the zeroskip CNN accelerator: needs Linux, Python 3.8 and NumPy.

    from zeroskip import Accelerator, load_bitstream
    load_bitstream("zeroskip.bit")
    with Accelerator.from_uio() as accelerator:
        accelerator.load("digits.zsn")
        scores = accelerator.run(picture)["fc2"]
"""
from .accelerator import Accelerator
from .bitstream import load_bitstream
from .board import DevMemRegisters, DmaBuffer, FileMemory, SocketRegisters, UioRegisters
from .errors import BoardError, ImageError, MapError, RunError, RunTimeout, ZeroskipError
from .image import Image, Map, read_image

__all__ = ["Accelerator", "BoardError", "DevMemRegisters", "DmaBuffer", "FileMemory", "Image", "ImageError", "Map",
           "MapError", "RunError", "RunTimeout", "SocketRegisters", "UioRegisters", "ZeroskipError", "load_bitstream",
           "read_image"]
