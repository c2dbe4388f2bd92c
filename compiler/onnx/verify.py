"""Does the model that was read compute what the ONNX file computes? ONNX Runtime decides."""
import numpy as np
import onnx
import onnxruntime

from ..model import Model, Round
from .read import HostPart

#: Difference that rounding of float32 may make, as a share of the largest value of an output.
TOLERANCE = 1e-3
#: The same for files that were quantised before, in which a rounding error may become a step of a scale.
QUANTISED_TOLERANCE = 0.1


def tolerance(model: Model) -> float:
    """The largest difference, as of :func:`largest_difference`, that is no fault."""
    return QUANTISED_TOLERANCE if any(isinstance(operator, Round) for operator in model.operators) else TOLERANCE


def run_file(proto: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """Outputs of an ONNX model for one input in the file's order."""
    session = _session(proto)
    source = session.get_inputs()[0]
    return session.run(None, {source.name: x.reshape(source.shape)})


def run_host(host: HostPart, model: Model, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of the ONNX file from the values [C, H, W] of the model's outputs."""
    if host.proto is None:
        return [values[name] for name in model.outputs]
    return _session(host.proto).run(None, {f"{name}.map": np.asarray(values[name], np.float32)[None]
                                           for name in model.outputs})


def largest_difference(proto: onnx.ModelProto, model: Model, host: HostPart, x: np.ndarray) -> float:
    """The largest difference between the outputs of the file and of ``model`` with ``host``, as a share of the largest
    value of its output, for an input in the file's order."""
    expected = run_file(proto, np.asarray(x, np.float32))
    found = run_host(host, model, model.run(model.input_map(np.asarray(x, np.float32))))
    return max(float(np.abs(one.reshape(-1) - other.reshape(-1)).max() / max(np.abs(other).max(), 1e-30))
               for one, other in zip(found, expected, strict=True))


def _session(proto):
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    # The plain operators: this is a reference, and some rewritings refuse networks.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
