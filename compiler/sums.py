"""Residual sums as a part of the convolution before them, for the intersect array.

``relu(convolution(x) + r)`` is a convolution of x and r: r under the tap that looks at the window's own pixel. Its sum
then holds the residual before the first weight below 0, so that stopping it is exact, which that of the convolution
alone, without a ReLU of its own, would not be. The array passes over the weights of 0 that come with it.

A channel's weights have one scale, so that a large factor of the residual takes bits from the others: sums where it is
more than :data:`MOST_FACTOR` times the largest of them, in half of the channels, stay.

Source: V. Akhlaghi et al., "SnaPEA", ISCA 2018 (exact mode).
"""
from dataclasses import replace

import numpy as np

from .model import Add, Clamp, Concat, Convolution, Model

#: The others lose 3 of their bits.
MOST_FACTOR = 8


def merge_sums(model: Model) -> Model:
    """``model`` with each sum that a ReLU follows in the convolution that makes one of its operands, where the other
    operand and what the convolution reads cannot be below 0, and windows and pixels are as many."""
    while True:
        makers = {operator.name: operator for operator in model.operators}
        for add in model.operators:
            merged = _merge(model, makers, add) if isinstance(add, Add) else None
            if merged is not None:
                convolution, operators = merged
                model = replace(model, operators=tuple(
                    new for operator in model.operators if operator is not convolution
                    for new in (operators if operator is add else [operator])))
                break
        else:
            return model


def _merge(model, makers, add):
    """``(convolution, operators)``: those that replace the convolution and ``add``; None if the sum stays."""
    followers = [operator for operator in model.operators if add.name in operator.inputs]
    if model.uses[add.name] != 1 or not followers or not isinstance(followers[0], Clamp) or followers[0].low != 0:
        return None
    for number, name in enumerate(add.inputs):
        convolution, other = makers.get(name), add.inputs[1 - number]
        if not isinstance(convolution, Convolution) or model.uses[name] != 1:
            continue
        tap = _own_tap(convolution)
        if tap is None or not model.nonnegative.issuperset((other, *convolution.inputs)):
            continue
        weights = convolution.weights * add.factors[number][:, None, None, None]
        factors = add.factors[1 - number]
        if np.median(np.abs(factors) - MOST_FACTOR * np.abs(weights).max((1, 2, 3))) > 0:
            continue
        residual = np.zeros((len(weights), len(weights), *weights.shape[2:]), weights.dtype)
        residual[np.arange(len(weights)), np.arange(len(weights)), *tap] = factors
        operands = Concat(f"{add.name}.operands", (*convolution.inputs, other), add.node)
        return convolution, [operands, replace(
            convolution, name=add.name, inputs=(operands.name,), weights=np.concatenate([weights, residual], 1),
            bias=convolution.bias * add.factors[number] + add.bias, summed=len(weights))]
    return None


def _own_tap(convolution):
    """Row and column of the tap that looks at the pixel of the output's own place; None if there is none for each."""
    if convolution.groups != 1 or convolution.stride != (1, 1):
        return None
    (row, row_rest), (column, column_rest) = (divmod(pad, step) for pad, step in zip(
        convolution.pad[:2], convolution.dilation, strict=True))
    rows, columns = convolution.weights.shape[2:]
    return (row, column) if not row_rest and not column_rest and row < rows and column < columns else None
