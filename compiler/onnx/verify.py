"""Does the model that was read compute what the ONNX file computes? ONNX Runtime decides."""
import numpy as np
import onnx
import onnxruntime

from ..errors import first_line, quoted
from ..model import Model, Round
from .read import HostPart

#: Difference that rounding of float32 may make, as a share of the largest value of an output.
TOLERANCE = 1e-3
#: The same for files in float16, which has 11 bits, and for those that were quantised before, in which a rounding
#: error may become a step of a scale.
HALF_TOLERANCE, QUANTISED_TOLERANCE = 0.02, 0.1


def tolerance(proto: onnx.ModelProto, model: Model) -> float:
    """The largest difference, as of :func:`largest_difference`, that is no fault."""
    if any(isinstance(operator, Round) for operator in model.operators):
        return QUANTISED_TOLERANCE
    kinds = {entry.type.tensor_type.elem_type for entry in proto.graph.input}
    return HALF_TOLERANCE if onnx.TensorProto.FLOAT16 in kinds else TOLERANCE


def run_file(proto: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """Outputs of an ONNX model for one input in the file's order; ``ValueError`` if ONNX Runtime refuses it."""
    try:
        session = _session(proto)
        source = session.get_inputs()[0]
        kind = np.float16 if source.type == "tensor(float16)" else np.float32
        return session.run(None, {source.name: x.reshape(source.shape).astype(kind)})
    except Exception as error:
        # It has error types of its own, without a common one.
        raise ValueError(f"ONNX Runtime cannot run network {quoted(proto.graph.name)}: {first_line(error)}") from None


def run_host(host: HostPart, model: Model, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of the ONNX file from the values [C, H, W] of the model's outputs."""
    if host.proto is None:
        return [values[name] for name in model.outputs]
    return _session(host.proto).run(None, {f"{name}.map": np.asarray(values[name], np.float32)[None]
                                           for name in model.outputs})


def largest_difference(proto: onnx.ModelProto, model: Model, host: HostPart, x: np.ndarray) -> float:
    """The largest difference between the outputs of the file and of ``model`` with ``host``, as a share of the largest
    value of its output, for an input in the file's order; ``ValueError`` if a value is not finite."""
    expected = run_file(proto, np.asarray(x, np.float32))
    for entry, values in zip(proto.graph.output, expected, strict=True):
        if np.asarray(values).dtype.kind not in "fiub" or not values.size:
            raise ValueError(f"output {quoted(entry.name)} of the network holds no numbers; leave it out")
        if not np.isfinite(values).all():
            raise ValueError(f"output {quoted(entry.name)} of the network has values that are not finite (NaN or "
                             f"infinite) for a calibration input: train it again, or give inputs of the range that it "
                             f"takes")
    found = run_host(host, model, model.run(model.input_map(np.asarray(x, np.float32))))
    for entry, values in zip(proto.graph.output, found, strict=True):
        # Folding multiplies weights that the file keeps apart.
        if not np.isfinite(values).all():
            raise ValueError(f"weights in front of output {quoted(entry.name)} are so large that their products do not "
                             "fit float32: train the network again, or divide them")
    found, expected = ([np.asarray(values, float).reshape(-1) for values in outputs] for outputs in (found, expected))
    return max(float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))
               for one, other in zip(found, expected, strict=True))


def _session(proto):
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    # The plain operators: this is a reference, and some rewritings refuse networks.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
