"""An ONNX file into memory: checked, with its external data, for one input and a batch of one, without QONNX nodes."""
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from ..errors import first_line, quoted
from .qonnx import to_qdq

#: Operator sets that are read.
OPSETS = range(8, 22)


def load_proto(path: Path | str, shape: tuple[int, ...] | None = None) -> onnx.ModelProto:
    """The ONNX model in ``path``, checked and with all its weights in memory; a QONNX file as QDQ (:func:`to_qdq`).

    Parameters
    ----------
    path : Path or str
    shape : tuple, optional
        Shape of the input without the batch, in the file's own order, where the file leaves it open.

    Raises
    ------
    ValueError
        One sentence that says what is wrong with the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, UnicodeDecodeError):
        raise ValueError(f"{path} is not a complete ONNX file: it is cut off, or it is something else") from None
    if not proto.graph.node:
        raise ValueError(f"{path} holds no ONNX network: its graph has no nodes")
    _check_opset(proto, path)
    _load_external_data(proto, path)
    _check_finite(proto, path)
    _fix_input(proto, path, shape)
    try:
        proto = to_qdq(proto, path)
        onnx.checker.check_model(proto)
        # Shapes written by the exporter may be for another input.
        del proto.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"{path} is not valid ONNX: {first_line(error)}") from None
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        # Some errors of its C++ come through as they are.
        raise ValueError(f"{path} has shapes that do not fit each other: {first_line(error)}") from None


def _check_opset(proto, path):
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ValueError(f"{path} names no ONNX opset; export it again with opset {OPSETS[0]} to {OPSETS[-1]}")
    if versions[0] not in OPSETS:
        raise ValueError(f"{path} has opset {versions[0]}, which is not one of {OPSETS[0]} to {OPSETS[-1]}; export it "
                         f"again with such an opset, or convert it with onnx.version_converter")


def _load_external_data(proto, path):
    for tensor in proto.graph.initializer:
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
            numpy_helper.to_array(tensor)
        except (OSError, ValueError, onnx.checker.ValidationError):
            raise ValueError(f"{path} keeps {quoted(tensor.name)} in the file {quoted(location)}, which is missing or "
                             f"too short; it must lie beside the ONNX file") from None


def _check_finite(proto, path):
    for tensor in proto.graph.initializer:
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as error:
            # NumPy, the table of types, or a view of the bytes.
            raise ValueError(f"{path} has weights {quoted(tensor.name)} that cannot be read: "
                             f"{first_line(error)}") from None
        # A single infinity is a bound, of Clip or of padding before a max pool.
        bound = values.size == 1 and np.isinf(values).all() if values.dtype.kind == "f" else True
        if not bound and not np.isfinite(values).all():
            raise ValueError(f"{path} has weights {quoted(tensor.name)} with values that are not finite (NaN or "
                             f"infinite); train or export it again")


def _fix_input(proto, path, shape):
    """Make the shape of the input one with a batch of 1."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [entry for entry in proto.graph.input if entry.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(quoted(entry.name) for entry in inputs)
        raise ValueError(f"{path} has {len(inputs)} inputs ({names}); the accelerator takes networks with one: "
                         f"export the part behind the others without them")
    tensor, what = inputs[0].type.tensor_type, f"input {quoted(inputs[0].name)} of {path}"
    if tensor.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        kinds = {number: name for name, number in onnx.TensorProto.DataType.items()}
        kind = kinds.get(tensor.elem_type, tensor.elem_type)
        raise ValueError(f"{what} is of type {kind}; export the network with a FLOAT input")
    # A dimension that is open has the value 0.
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    if len(sizes) not in (2, 4):
        raise ValueError(f"{what} has {len(sizes)} dimensions; the accelerator takes "
                         f"pictures (batch, channels, rows, columns) or vectors (batch, features)")
    if min(sizes) < 0:
        raise ValueError(f"{what} has a size below 0 ({'x'.join(map(str, sizes))})")
    if sizes[0] > 1:
        raise ValueError(f"{what} is a batch of {sizes[0]}; export it with a batch of 1")
    if shape is not None:
        if len(shape) != len(sizes) - 1 or any(old not in (0, new) for old, new in zip(sizes[1:], shape, strict=False)):
            given, own = ("x".join(map(str, numbers)) for numbers in (shape, sizes[1:]))
            raise ValueError(f"shape {given} does not fit {what}, which is {own} (0: open)")
        sizes[1:] = shape
    if 0 in sizes[1:]:
        raise ValueError(f"{what} has open dimensions ({'x'.join(map(str, sizes[1:]))}, "
                         f"0: open); give them, such as --shape 3x224x224")
    for dim, size in zip(tensor.shape.dim, [1, *sizes[1:]], strict=True):
        dim.dim_value = size
    # The outputs follow from the input.
    for output in proto.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()
