"""ULX3S with an ECP5-85: the accelerator with a memory in block RAM, driven from a PC over a serial line."""
