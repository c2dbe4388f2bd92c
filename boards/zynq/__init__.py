"""Zynq-7000: the accelerator behind the ARM cores."""
