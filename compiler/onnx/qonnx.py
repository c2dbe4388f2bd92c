"""QONNX: Quant nodes as the constants, or the Clip, QuantizeLinear and DequantizeLinear (QDQ), that give their values.

Source: https://github.com/fastmachinelearning/qonnx, docs/qonnx-custom-ops. The converter of that package is not used:
it leaves what it cannot convert without a word, raises an opset by its number alone, and needs seven more packages.
"""
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

from ..errors import first_line
from .read import describe, evaluate

DOMAINS = ("onnx.brevitas", "qonnx.custom_op.general")
#: A node has been called IntQuant since QONNX 1.0, half to even HALF_EVEN.
KINDS, HALF_TO_EVEN = ("Quant", "IntQuant"), ("ROUND", "HALF_EVEN")
#: Since when Clip takes its bounds, and DequantizeLinear integers, as they are written here: of 8 and of 16 bits.
OPSET_8_BITS, OPSET_16_BITS = 13, 21


@dataclass(frozen=True)
class _Grid:
    """What a map is rounded to: multiples ``low .. high`` of ``scale``, held in ``kind``."""
    scale: np.float32
    low: int
    high: int
    kind: np.dtype

    @property
    def clips(self):
        return (self.low, self.high) != (np.iinfo(self.kind).min, np.iinfo(self.kind).max)


def to_qdq(proto: onnx.ModelProto, path) -> onnx.ModelProto:
    """``proto``, which may be changed, without the Quant nodes (IntQuant) of QONNX; as it is if there are none.

    A node with constant inputs becomes an initializer, with 2 to 32 bits (1 if unsigned), any zero point, and a scale
    that may differ from channel to channel. One that rounds a map, to 16 bits or fewer, becomes Clip, where it holds
    fewer integers than a type of 8 or 16 bits, QuantizeLinear and DequantizeLinear; its scale is one number, its zero
    point 0. The values are those of the Quant node: bounds are multiples of the scale, so it is the same to clamp
    before rounding and behind it. Files of an opset that has no such nodes are converted.

    Raises
    ------
    ValueError
        One sentence that names the node, or the file ``path``, and what to do.
    onnx.checker.ValidationError
        The file would have to be converted, but is not valid.
    """
    if not any(map(_is_quant, proto.graph.node)):
        return proto
    constants, grids = _plan(proto)
    wide = any(grid.kind.itemsize > 1 for grid in grids.values())
    proto = _converted(proto, OPSET_16_BITS if wide else OPSET_8_BITS, path)
    graph, nodes = proto.graph, []
    for node in graph.node:
        if not _is_quant(node):
            nodes.append(node)
        elif node.output[0] in constants:
            graph.initializer.append(numpy_helper.from_array(constants[node.output[0]], node.output[0]))
        else:
            nodes += _qdq(node, grids[node.output[0]], graph.initializer)
    del graph.node[:]
    graph.node.extend(nodes)
    return proto


def _is_quant(node):
    return node.domain in DOMAINS and node.op_type in KINDS


def _plan(proto):
    """``(constants, grids)``: for each Quant node, by its output, its values or what it rounds a map to."""
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    constants, grids = {}, {}
    for node in proto.graph.node:
        if _is_quant(node):
            if len(node.input) != 4 or len(node.output) != 1 or not node.output[0]:
                raise ValueError(f"{describe(node)} has {len(node.input)} inputs and {len(node.output)} outputs; it "
                                 f"needs 4 and 1 with a name: export the network again")
            x, *parameters = (known.get(name) for name in node.input)
            scale, zero, bits, low, high = _parameters(node, *parameters)
            if x is None:
                grids[node.output[0]] = _grid(node, scale, zero, bits, low, high)
            else:
                known[node.output[0]] = constants[node.output[0]] = _values(node, x, scale, zero, low, high)
        elif node.domain in ("", "ai.onnx") and all(name in known for name in node.input if name):
            known.update(zip(node.output, evaluate(node, [known.get(name) for name in node.input], proto.opset_import),
                             strict=True))
    return constants, grids


def _parameters(node, scale, zero, bits):
    """``(scale, zero point, bit width, lowest, highest integer)`` of a Quant node."""
    for what, values in (("scale", scale), ("zero point", zero), ("bit width", bits)):
        if values is None:
            raise ValueError(f"{describe(node)} has a {what} that is not constant; export the network for inference "
                             f"(model.eval())")
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    rounding = attributes.get("rounding_mode", b"ROUND")
    rounding = rounding.decode(errors="replace") if isinstance(rounding, bytes) else str(rounding)
    if rounding.upper() not in HALF_TO_EVEN:
        raise ValueError(f"{describe(node)} has rounding_mode {rounding}; only ROUND (half to even) is supported: "
                         f"train with it")
    scale, zero, bits = (np.asarray(values, np.float32) for values in (scale, zero, bits))
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"{describe(node)} has a scale of {scale.min():g}, which must be above 0 and finite")
    if bits.size != 1:
        raise ValueError(f"{describe(node)} has {bits.size} bit widths; only one for all values is supported")
    bits, signed, narrow = bits.item(), bool(attributes.get("signed", 1)), bool(attributes.get("narrow", 0))
    least = 2 if signed else 1
    if bits not in range(least, 33):
        raise ValueError(f"{describe(node)} has a bit width of {bits:g}; whole numbers from {least} to 32 are "
                         f"supported")
    bits = int(bits)
    low = narrow - (1 << bits - 1) if signed else 0
    return scale, zero, bits, low, (1 << bits - signed) - 1 - (narrow and not signed)


def _grid(node, scale, zero, bits, low, high):
    if scale.size != 1:
        raise ValueError(f"{describe(node)} has a scale for each channel of a map; only one for all is supported")
    if zero.any():
        raise ValueError(f"{describe(node)} has zero point {zero.flat[0]:g} for a map; only 0 is supported: quantise "
                         f"again with symmetric activations (Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint "
                         f"in Brevitas)")
    kind = np.dtype(f"{'int' if low < 0 else 'uint'}{8 if bits <= 8 else 16}")
    if bits > 16:
        raise ValueError(f"{describe(node)} rounds a map to {low} .. {high}; a map may have up to 16 bits: train with "
                         f"such a bit width")
    return _Grid(np.float32(scale.flat[0]), low, high, kind)


def _values(node, x, scale, zero, low, high):
    x = np.asarray(x, np.float32)
    try:
        shape = np.broadcast_shapes(x.shape, scale.shape, zero.shape)
    except ValueError:
        shape = None
    if shape != x.shape:
        raise ValueError(f"{describe(node)} has a scale of shape {scale.shape} and a zero point of shape {zero.shape} "
                         f"that do not fit its input of shape {x.shape}")
    # Values that are not finite are found when they come to an operator.
    with np.errstate(all="ignore"):
        return (np.rint(np.clip(x / scale + zero, low, high)) - zero) * scale


def _converted(proto, opset, path):
    """``proto`` in ``opset`` or a newer one."""
    found = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if found < opset:
        # The converter wants all domains named; files of the qonnx package leave theirs out.
        missing = {node.domain for node in proto.graph.node} - {entry.domain for entry in proto.opset_import} - {""}
        proto.opset_import.extend(helper.make_opsetid(domain, 1) for domain in sorted(missing))
        # Damaged files can crash it.
        onnx.checker.check_model(proto)
        try:
            proto = version_converter.convert_version(proto, opset)
        except Exception as error:
            # Its C++ has several types of errors, and some come through as they are.
            raise ValueError(f"{path} has opset {found}, its Quant nodes need {opset}, and it cannot be converted "
                             f"({first_line(error)}); export it again with opset {opset}") from None
    # Before version 4 an initializer had to be an input.
    proto.ir_version = max(proto.ir_version, 4)
    return proto


def _qdq(node, grid, initializers):
    """The nodes in place of a Quant node, the last of which has its name; ``initializers`` gets their constants."""
    output = node.output[0]

    def constant(what, value):
        initializers.append(numpy_helper.from_array(np.asarray(value), f"{output}.quant.{what}"))
        return initializers[-1].name

    source, nodes = node.input[0], []
    if grid.clips:
        # Of reals: ONNX Runtime has no Clip of 16-bit integers.
        with np.errstate(over="ignore"):
            bounds = [constant("low", grid.low * grid.scale), constant("high", grid.high * grid.scale)]
        nodes.append(helper.make_node("Clip", [source, *bounds], [f"{output}.quant.clipped"]))
        source = nodes[-1].output[0]
    scale = [constant("scale", grid.scale), constant("zero", grid.kind.type(0))]
    return [*nodes, helper.make_node("QuantizeLinear", [source, *scale], [f"{output}.quant.integers"]),
            helper.make_node("DequantizeLinear", [f"{output}.quant.integers", *scale], [output], node.name)]
