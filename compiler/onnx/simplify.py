"""Fewer operators for the same function: batch norms into convolutions, clamps and rounding to where values are made,
padding into windows."""
from dataclasses import replace

import numpy as np

from ..model import Add, Affine, AveragePool, Clamp, Concat, Convolution, MaxPool, Model, Operator, Pad, Round, Select


def simplify(model: Model) -> Model:
    """``model`` with what can be folded folded, and without operators whose results nobody reads.

    The values that are left keep their names and, up to rounding, their contents.
    """
    while True:
        model = _without_unread(model)
        step = _fold_one(model)
        if step is None:
            return model
        model = step


def _without_unread(model):
    needed, kept = set(model.outputs), []
    for operator in reversed(model.operators):
        if operator.name in needed:
            kept.append(operator)
            needed.update(operator.inputs)
    return replace(model, operators=tuple(reversed(kept)))


def _fold_one(model):
    """``model`` with the first pair that can be folded replaced; None if there is none left."""
    makers = {operator.name: operator for operator in model.operators}
    for place, second in enumerate(model.operators):
        for number, name in enumerate(second.inputs):
            first = makers.get(name)
            if first is None or model.uses[name] != 1:
                continue
            folded = _fold(first, second, number, model.nonnegative)
            if folded is not None:
                operators = [operator for operator in model.operators[:place] if operator is not first]
                return replace(model, operators=(*operators, *folded, *model.operators[place + 1:]))
    return None


def _fold(first: Operator, second: Operator, number: int, nonnegative: set[str]) -> list[Operator] | None:
    """What replaces ``first`` and ``second``, which reads it as its input ``number``; None if nothing does."""
    match first, second:
        case Convolution(), Affine():
            weights = first.weights * second.factor[:, None, None, None]
            return [replace(first, name=second.name, weights=weights, bias=first.bias * second.factor + second.bias)]
        case Affine(), Convolution() if not any(second.pad) or not first.bias.any():
            return [_affine_before(first, second)]
        case Affine(), Affine():
            return [replace(second, inputs=first.inputs, factor=first.factor * second.factor,
                            bias=first.bias * second.factor + second.bias)]
        case Add(), Affine():
            return [replace(first, name=second.name, factors=first.factors * second.factor,
                            bias=first.bias * second.factor + second.bias)]
        case Affine(), Add() if first.inputs[0] not in second.inputs:
            factors, factor = second.factors.copy(), second.factors[number]
            factors[number] = factor * first.factor
            inputs = [*second.inputs]
            inputs[number] = first.inputs[0]
            return [replace(second, inputs=tuple(inputs), factors=factors, bias=second.bias + factor * first.bias)]
        case Clamp(), Clamp():
            low, high = (float(np.clip(bound, second.low, second.high)) for bound in (first.low, first.high))
            return [replace(second, inputs=first.inputs, low=low, high=high)]
        case Clamp(), Round():
            # Rounding keeps the order: bounds may be rounded first.
            low, high = (int(np.clip(np.rint(np.float32(bound) / np.float32(second.scale)), second.low, second.high))
                         for bound in (first.low, first.high))
            return [replace(second, inputs=first.inputs, low=low, high=high)]
        case Round(), Round() if first.scale == second.scale:
            low, high = (int(np.clip(bound, second.low, second.high)) for bound in (first.low, first.high))
            return [replace(second, inputs=first.inputs, low=low, high=high)]
        case MaxPool(), Clamp() | Round():
            # The largest of clamped values is the largest value, clamped.
            return _swapped(first, second)
        case Concat() | Pad(value=0.0) | Select(), Round() if second.low <= 0 <= second.high:
            return _swapped(first, second)
        case Pad(value=0.0), Convolution() | AveragePool():
            return [_pad_before(first, second)]
        case Pad(), MaxPool() if first.value < 0 or first.inputs[0] in nonnegative:
            folded = _pad_before(first, second)
            # Not where a window could hold nothing but padding.
            fits = all(more < taps for more, taps in zip(folded.pad, second.kernel * 2, strict=True))
            return [folded] if fits else None
    return None


def _swapped(first, second):
    """``second`` on each input of ``first``, which then has the name of ``second``."""
    inner = [replace(second, name=f"{second.name}.{name}", inputs=(name,)) for name in first.inputs]
    return [*inner, replace(first, name=second.name, inputs=tuple(operator.name for operator in inner))]


def _affine_before(affine, convolution):
    """The convolution that reads what ``affine`` reads: ``w * (f x + b) = (w f) x + sum(w b)``."""
    outputs, inputs = convolution.weights.shape[:2]
    # Channels that each output channel reads.
    channels = (np.arange(outputs) // (outputs // convolution.groups) * inputs)[:, None] + np.arange(inputs)
    bias = np.einsum("oikl,oi->o", convolution.weights, affine.bias[channels])
    return replace(convolution, inputs=affine.inputs, bias=convolution.bias + bias,
                   weights=convolution.weights * affine.factor[channels][:, :, None, None])


def _pad_before(pad, operator):
    total = tuple(more + own for more, own in zip(pad.pad, operator.pad, strict=True))
    return replace(operator, inputs=pad.inputs, pad=total)
