"""Damage to ONNX files, calibration files and options: every function changes one thing, decided by ``rng``.

What they leave may still be a sound network, or a file that nothing can read.
"""
import io

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compiler.onnx.qonnx import DOMAINS

#: Numbers that sizes, axes and counts should not be.
ODD_NUMBERS = (0, -1, 1, 2, 3, 7, 8, 1000, 2**31 - 1, -(2**31), 2**40, 2**63 - 1)
#: Values that weights should not have.
ODD_VALUES = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 1e20, 0.0, -0.0)
ODD_NAMES = ("", "/", "a/b", "[/bold]", "[red]", "ä" * 60, "x" * 300, "\n", "%s{}", "x")
OPERATORS = ("Add", "ArgMax", "AveragePool", "BipolarQuant", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape",
             "Conv", "ConvTranspose", "DepthToSpace", "Div", "Dropout", "Expand", "Flatten", "Gather", "Gemm",
             "GlobalAveragePool", "GlobalMaxPool", "Identity", "If", "IntQuant", "LeakyRelu", "Loop", "MatMul",
             "MaxPool", "Mul", "NoSuchOperator", "Pad", "PRelu", "Quant", "QuantizeLinear", "DequantizeLinear",
             "ReduceMean", "ReduceMax", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Split",
             "Squeeze", "Sub", "Sum", "Tile", "TopK", "Transpose", "Trunc", "Unsqueeze")


# Bytes.

def damage_bytes(data: bytes, rng) -> bytes:
    """``data`` cut off, with some bytes changed, or with a piece taken out, repeated or set to zero."""
    data = bytearray(data)
    place, length = int(rng.integers(0, len(data) + 1)), int(rng.integers(1, 65))
    match rng.integers(0, 6):
        case 0:
            del data[place:]
        case 1:
            for at in rng.integers(0, len(data), int(rng.integers(1, 9))):
                data[at] = int(rng.integers(0, 256))
        case 2:
            data[place:place + length] = b""
        case 3:
            data[place:place] = data[place:place + length]
        case 4:
            data[place:place + length] = bytes(len(data[place:place + length]))
        case _:
            at = int(rng.integers(0, len(data)))
            data[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


# ONNX.

def damage_proto(proto: onnx.ModelProto, rng) -> onnx.ModelProto:
    """A copy of ``proto`` with one to three changes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for _ in range(int(rng.integers(1, 4))):
        _pick(rng, PROTO_CHANGES)(copy, rng)
    return copy


def _pick(rng, items):
    return items[int(rng.integers(0, len(items)))] if len(items) else None


def _operator(proto, rng):
    if node := _pick(rng, proto.graph.node):
        node.op_type = _pick(rng, OPERATORS)


def _drop_node(proto, rng):
    if proto.graph.node:
        del proto.graph.node[int(rng.integers(0, len(proto.graph.node)))]


def _repeat_node(proto, rng):
    if node := _pick(rng, proto.graph.node):
        proto.graph.node.append(node)


def _swap_nodes(proto, rng):
    nodes = list(proto.graph.node)
    rng.shuffle(nodes)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _input(proto, rng):
    node = _pick(rng, proto.graph.node)
    if node and node.input:
        names = ["", "nothing", *(name for other in proto.graph.node for name in (*other.input, *other.output))]
        node.input[int(rng.integers(0, len(node.input)))] = _pick(rng, names)


def _input_count(proto, rng):
    if node := _pick(rng, proto.graph.node):
        if node.input and rng.random() < 0.6:
            del node.input[int(rng.integers(0, len(node.input)))]
        else:
            node.input.append(node.input[0] if node.input else "x")


def _output_name(proto, rng):
    node = _pick(rng, proto.graph.node)
    if node and node.output:
        node.output[int(rng.integers(0, len(node.output)))] = _pick(rng, ODD_NAMES)


def _node_name(proto, rng):
    if node := _pick(rng, proto.graph.node):
        node.name = _pick(rng, ODD_NAMES)


def _rename(proto, rng):
    """Another name for a tensor, wherever it is."""
    names = [name for node in proto.graph.node for name in (*node.input, *node.output) if name]
    old, new = _pick(rng, names), _pick(rng, ODD_NAMES[1:])
    for node in proto.graph.node:
        for entries in (node.input, node.output):
            entries[:] = [new if name == old else name for name in entries]
    for entry in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        entry.name = new if entry.name == old else entry.name


def _domain(proto, rng):
    if node := _pick(rng, proto.graph.node):
        node.domain = _pick(rng, ("com.microsoft", "ai.onnx.ml", "nowhere", "ai.onnx", *DOMAINS))


def _attribute(proto, rng):
    attributes = [entry for node in proto.graph.node for entry in node.attribute]
    entry = _pick(rng, attributes)
    if entry is None:
        return
    match rng.integers(0, 6):
        case 0:
            entry.name = _pick(rng, ("pads", "strides", "axis", "nothing", ""))
        case 1:
            entry.type = int(rng.integers(0, 12))
        case 2 if entry.ints:
            entry.ints[int(rng.integers(0, len(entry.ints)))] = _pick(rng, ODD_NUMBERS)
        case 3 if entry.ints:
            del entry.ints[-1]
        case 4 if entry.ints:
            entry.ints.append(_pick(rng, ODD_NUMBERS))
        case _:
            if entry.type == onnx.AttributeProto.FLOAT:
                entry.f = _pick(rng, ODD_VALUES)
            elif entry.type == onnx.AttributeProto.STRING:
                entry.s = _pick(rng, (b"", b"\xff", b"SAME_UPPER", b"x"))
            else:
                entry.i = _pick(rng, ODD_NUMBERS)


def _new_attribute(proto, rng):
    if node := _pick(rng, proto.graph.node):
        name = _pick(rng, ("group", "axis", "keepdims", "ceil_mode", "auto_pad", "dilations", "strides", "pads",
                           "kernel_shape", "storage_order", "count_include_pad", "transA", "alpha", "to", "mode",
                           "signed", "narrow", "rounding_mode"))
        value = _pick(rng, (0, 1, 2, -1, [1, 2], [2, 2], [], [0, 0, 1, 1], b"SAME_LOWER", b"edge", 0.5))
        node.attribute.append(helper.make_attribute(name, value, attr_type=onnx.AttributeProto.INTS)
                              if value == [] else helper.make_attribute(name, value))


def _drop_attribute(proto, rng):
    node = _pick(rng, proto.graph.node)
    if node and node.attribute:
        del node.attribute[int(rng.integers(0, len(node.attribute)))]


def _values(tensor):
    """The values of a tensor; none if an earlier change has left nothing that can be read."""
    try:
        return np.array(numpy_helper.to_array(tensor))
    except Exception:
        return np.zeros(0, np.float32)


def _weight_values(proto, rng):
    tensor = _pick(rng, proto.graph.initializer)
    if tensor is None:
        return
    values = _values(tensor)
    if not values.size:
        return
    if values.dtype.kind == "f":
        odd = _pick(rng, ODD_VALUES)
        values.reshape(-1)[rng.integers(0, values.size, int(rng.integers(1, values.size + 1)))] = odd
    else:
        values.reshape(-1)[int(rng.integers(0, values.size))] = np.array(_pick(rng, ODD_NUMBERS)).astype(values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _weight_shape(proto, rng):
    tensor = _pick(rng, proto.graph.initializer)
    if tensor is None:
        return
    match rng.integers(0, 4):
        case 0 if tensor.dims:
            tensor.dims[int(rng.integers(0, len(tensor.dims)))] = _pick(rng, ODD_NUMBERS)
        case 1:
            tensor.dims.append(1)
        case 2 if tensor.dims:
            sizes = sorted(tensor.dims)
            tensor.dims[:] = sizes
        case _:
            tensor.raw_data = tensor.raw_data[:int(rng.integers(0, len(tensor.raw_data) + 1))]


def _weight_type(proto, rng):
    if tensor := _pick(rng, proto.graph.initializer):
        if rng.random() < 0.5:
            tensor.data_type = int(rng.integers(0, 24))
        else:
            kind = _pick(rng, (np.float16, np.float64, np.int8, np.int64, np.bool_))
            with np.errstate(all="ignore"):
                values = _values(tensor).astype(kind)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _drop_weight(proto, rng):
    if proto.graph.initializer:
        del proto.graph.initializer[int(rng.integers(0, len(proto.graph.initializer)))]


def _external(proto, rng):
    tensor = _pick(rng, proto.graph.initializer)
    if tensor:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", _pick(rng, ("weights.bin", "../x", "/etc/passwd", "", "net.onnx"))),
                           ("offset", str(_pick(rng, ODD_NUMBERS))), ("length", str(_pick(rng, ODD_NUMBERS)))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value


def _opset(proto, rng):
    kind = rng.integers(0, 4)
    # Another change may have removed them.
    match kind if proto.opset_import else 1:
        case 0:
            del proto.opset_import[:]
        case 1:
            proto.opset_import.append(helper.make_opsetid("", int(rng.integers(1, 30))))
        case _:
            proto.opset_import[0].version = _pick(rng, (-1, 0, 1, 6, 7, 8, 9, 11, 13, 18, 21, 22, 99, 2**40))


def _input_shape(proto, rng):
    tensor = proto.graph.input[0].type.tensor_type if proto.graph.input else None
    if tensor is None:
        return
    match rng.integers(0, 5):
        case 0 if tensor.shape.dim:
            tensor.shape.dim[int(rng.integers(0, len(tensor.shape.dim)))].dim_value = _pick(rng, ODD_NUMBERS)
        case 1 if tensor.shape.dim:
            tensor.shape.dim[int(rng.integers(0, len(tensor.shape.dim)))].dim_param = "n"
        case 2:
            tensor.shape.dim.add().dim_value = 1
        case 3 if tensor.shape.dim:
            del tensor.shape.dim[-1]
        case _:
            tensor.elem_type = int(rng.integers(0, 24))


def _inputs(proto, rng):
    if rng.random() < 0.5:
        proto.graph.input.add().CopyFrom(helper.make_tensor_value_info(_pick(rng, ODD_NAMES), 1, [1, 2]))
    else:
        del proto.graph.input[:]


def _outputs(proto, rng):
    match rng.integers(0, 4):
        case 0:
            del proto.graph.output[:]
        case 1:
            proto.graph.output.add().CopyFrom(proto.graph.output[0] if proto.graph.output else onnx.ValueInfoProto())
        case 2 if proto.graph.output:
            names = [name for node in proto.graph.node for name in (*node.input, *node.output)]
            proto.graph.output[0].name = _pick(rng, (*names, "nothing"))
        case _:
            names = [name for node in proto.graph.node for name in node.output]
            if names:
                proto.graph.output.add().name = _pick(rng, names)


def _cycle(proto, rng):
    if proto.graph.node and proto.graph.node[-1].output and proto.graph.node[0].input:
        proto.graph.node[0].input[0] = proto.graph.node[-1].output[0]


def _empty(proto, rng):
    proto.graph.ClearField(_pick(rng, ("node", "initializer", "name", "input", "output")))


def _version(proto, rng):
    proto.ir_version = _pick(rng, (0, 1, 3, 4, 11, 12, 99, 2**40))


PROTO_CHANGES = (_operator, _drop_node, _repeat_node, _swap_nodes, _input, _input_count, _output_name, _node_name,
                 _rename, _domain, _attribute, _attribute, _attribute, _new_attribute, _new_attribute, _drop_attribute,
                 _weight_values, _weight_values, _weight_shape, _weight_type, _drop_weight, _external, _opset,
                 _input_shape, _inputs, _outputs, _cycle, _empty, _version)


# Calibration.

def odd_array(shape, rng) -> np.ndarray:
    """An array that calibration may refuse; ``shape`` would be right."""
    values = rng.normal(size=(2, *shape)).astype(np.float32)
    match rng.integers(0, 12):
        case 0:
            values.reshape(-1)[int(rng.integers(0, values.size))] = _pick(rng, ODD_VALUES)
        case 1:
            values = np.full_like(values, _pick(rng, ODD_VALUES))
        case 2:
            values = values[:0]
        case 3:
            values = values[..., :-1]
        case 4:
            values = values.reshape(-1)
        case 5:
            values = np.float32(1)
        case 6:
            values = values.astype(_pick(rng, ("complex64", "bool", "U4", "float16", "int8", ">f4", "M8[s]", "S3")))
        case 7:
            values = np.array([{"a": 1}, None], object)
        case 8:
            values = np.zeros(values.shape, [("a", "f4"), ("b", "i4")])
        case 9:
            values = np.asfortranarray(values)[::-1]
        case 10:
            with np.errstate(over="ignore"):
                values = values * np.float32(1e38)
        case _:
            values = values.astype(np.float64) * 1e300
    return values


def write_calibration(folder, shape, rng) -> str:
    """Write calibration data, most of it damaged, below ``folder``; returns what --calib is to be."""
    folder = folder / "calib"
    sound = rng.normal(size=(2, *shape)).astype(np.float32)
    arrays = {"a": odd_array(shape, rng) if rng.random() < 0.6 else sound}
    if rng.random() < 0.2:
        arrays["b"] = odd_array(shape, rng)
    buffer = io.BytesIO()
    if rng.random() < 0.5:
        np.save(buffer, arrays["a"], allow_pickle=True)
        name = "inputs.npy"
    else:
        np.savez(buffer, **arrays)
        name = "inputs.npz"
    data = buffer.getvalue()
    if rng.random() < 0.5:
        data = damage_bytes(data, rng)
    match rng.integers(0, 5):
        case 0:
            folder.mkdir()
            (folder / name).write_bytes(data)
            if rng.random() < 0.5:
                (folder / "b.npz").write_bytes(b"")
            return str(folder)
        case 1:
            folder.mkdir()
            picture = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(picture, "png")
            content = picture.getvalue() if rng.random() < 0.4 else damage_bytes(picture.getvalue(), rng)
            (folder / "a.png").write_bytes(content)
            return str(folder)
        case 2 if rng.random() < 0.3:
            return str(folder / _pick(rng, ("nothing", "..", "\0", "x" * 300)))
        case _:
            path = folder.parent / name
            path.write_bytes(data)
            return str(path)


def odd_options(rng) -> list[str]:
    """One or two options of ``compile`` with a value that is not usual."""
    values = {
        "--shape": ("", "x", "3x", "3x8x8", "0x8x8", "-1x8x8", "99999x99999x3", "3X8X8", "3x8", "²x8x8", "9" * 400),
        "--mean": ("nan", "inf", "", ",", "1,2", "1,2,3", "1e400", "a"),
        "--std": ("0", "-1", "nan", "1,0,1", "1e-45", "1,2,3,4"),
        "--count": ("0", "-1", "1", "1000000", "1.5", "x", "9" * 30),
        "--config": ("tiny", "none", "", "../x", "tiny.json", "small", "nullhop"),
        "--output": ("", ".", "/dev/full", "a/b/c.zsn", "/proc/x", "x" * 300, "x.host.onnx"),
        "--nothing": ("1",),
    }
    options = []
    for _ in range(int(rng.integers(1, 3))):
        name = _pick(rng, list(values))
        options += [name, _pick(rng, values[name])]
    return options
