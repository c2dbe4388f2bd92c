"""A clock for each part that can rest: what has no edge, Verilator does not evaluate."""
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, DomainRenamer, Fragment, ResetSignal, Signal, Value


def gated_rtlil(component, name: str) -> str:
    """RTLIL of ``component`` in which each part that has an ``o_active`` (hw/README.md) has its own clock.

    Beside the ports of the component, ``clk`` and ``rst`` there are, for each such part n, the input ``gate<n>_clk``
    and the output ``gate<n>_active``. ``gate<n>_clk`` has to rise together with ``clk``, but may stay low in a cycle in
    which ``gate<n>_active`` and ``rst`` are 0. A part inside of such a part shares its clock. While
    ``component.soft_reset``, where there is one, is 1, all parts are active.
    """
    ports = [("__".join(map(str, path)), Value.cast(value), None)
             for path, _, value in component.signature.flatten(component)]
    gates = []

    def with_gates(fragment):
        part = next((part for part in fragment.origins or () if hasattr(part, "o_active")), None)
        if part is None:
            fragment.subfragments = [(with_gates(inner), *rest) for inner, *rest in fragment.subfragments]
            return fragment
        gate = ClockDomain(f"gate{len(gates)}")
        gates.append((gate, part.o_active))
        return DomainRenamer({"sync": gate.name})(fragment)

    top = with_gates(Fragment.get(component, None))
    for gate, wanted in gates:
        active = Signal(name=f"{gate.name}_active")
        top.add_domains(gate)
        top.add_statements("comb", [active.eq(wanted | getattr(component, "soft_reset", 0)),
                                    gate.rst.eq(ResetSignal())])
        ports += [(None, gate.clk, None), (None, active, None)]
    return rtlil.convert(top, name=name, ports=ports, emit_src=False)
