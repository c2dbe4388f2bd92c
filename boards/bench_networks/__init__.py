"""Whole networks, measured: accuracy of the integers, cycles in the RTL, what the cycle model says (``make
bench-networks``)."""
