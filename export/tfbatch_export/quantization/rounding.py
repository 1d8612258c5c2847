"""Products with weights in 8 bits: what becomes of their numbers.

Static: the channels of what is read have a step each, found on real rows, and the columns of weights a scale each. A
channel that is large for all tokens has a large step, by which its weights are multiplied; how much of its range is
left to them is SmoothQuant's alpha (Xiao et al., 2023). Weights are rounded one channel after another, and those that
follow are moved to make up for it, as GPTQ does (Frantar et al., 2023); what that takes away on the average is added.
A few channels that are far larger than all others, in some tokens, can be left as they are, as by LLM.int8()
(Dettmers et al., 2022).

In blocks: 128 weights along a column, and 128 activations of a token, share a scale, which is found as they come.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tfbatch_export.quantization.calibration import Doubles, Numbers, Seen

BLOCK = 128  # channels that share a scale where it is found as they come
LEVELS = 255  # of activations, from 0 on
LARGEST = 127  # of weights
SMOOTHING = 0.9  # SmoothQuant's alpha: 1 gives each channel all levels
DAMPING = 0.01  # GPTQ's, of the mean variance
NOISE = 1 / 12  # the variance that rounding adds to a channel, in levels
NARROWEST = 1e-3  # the least range of a channel, of its largest number
AT_ONCE = 128  # channels after which what is left is moved together
SMALLEST = 1e-12  # in place of zero, where it divides


@dataclass(frozen=True)
class Static:
    """Activations x (n, K) as levels 0 to 255 of x / steps + zeros, weights (K, N) as levels of columns with scales
    (N,), what is added to their product (N,); and the channels (m,) that stay as they are, with their weights (m, N).
    """

    steps: Numbers
    zeros: Numbers
    weights: npt.NDArray[np.int8]
    scales: Numbers
    correction: Numbers
    outliers: npt.NDArray[np.int64]
    exact: Numbers

    def product(self, states: Numbers) -> Numbers:
        """What is made of states (n, K): (n, N)."""
        levels = np.clip(np.rint(states / self.steps + self.zeros), 0, LEVELS)
        made: Numbers = levels @ self.weights.astype(np.float32) * self.scales + self.correction
        return made + states[:, self.outliers] @ self.exact

    def parts(self, widths: Sequence[int]) -> Iterator["Static"]:
        """Products of some columns each."""
        first = 0
        for width in widths:
            columns = np.s_[..., first : first + width]
            yield replace(
                self,
                weights=np.ascontiguousarray(self.weights[columns]),
                scales=self.scales[columns],
                correction=self.correction[columns],
                exact=np.ascontiguousarray(self.exact[columns]),
            )
            first += width


def round_static(weights: Numbers, seen: Seen, outliers: int = 0) -> Static:
    """Round a product's weights (K, N) for what it reads, but for so many channels, those with the largest parts."""
    sizes = np.maximum(np.abs(seen.low), np.abs(seen.high))
    ranges = np.maximum(seen.high - seen.low, np.maximum(NARROWEST * sizes, SMALLEST))
    largest = np.abs(weights).max(1)
    largest = np.maximum(largest, max(NARROWEST * largest.max(), SMALLEST))
    order = np.argsort(-ranges * largest)
    apart, others = np.sort(order[:outliers]), order[outliers:]
    shares = ranges**SMOOTHING / largest ** (1 - SMOOTHING)
    steps = np.asarray(shares * (ranges / shares)[others].max() / LEVELS, np.float32)
    zeros = np.asarray(np.rint(LEVELS / 2 - (seen.low + seen.high) / 2 / steps), np.float32)
    inner, covariance = weights.copy(), seen.covariance / np.outer(steps, steps)
    inner[apart] = covariance[apart] = covariance[:, apart] = 0
    scaled = inner * steps[:, None]
    scales = np.maximum(np.abs(scaled).max(0) / LARGEST, SMALLEST)
    rounded = round_weights(scaled, scales, covariance)
    made = (seen.mean / steps + zeros) @ rounded.astype(np.float32) * scales
    return Static(steps, zeros, rounded, scales, seen.mean @ inner - made, apart, weights[apart])


def round_weights(weights: Numbers, scales: Numbers, covariance: Doubles) -> npt.NDArray[np.int8]:
    """Levels of weights (K, N), so that their product with levels of a covariance (K, K) changes little."""
    variances = np.diag(covariance)
    order = np.argsort(-variances)
    damped = covariance[np.ix_(order, order)]
    damped[np.diag_indices_from(damped)] += max(DAMPING * variances.mean(), NOISE)
    moves = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
    left, rounded = weights[order], np.empty(weights.shape, np.int8)
    for first in range(0, len(left), AT_ONCE):
        stop = min(first + AT_ONCE, len(left))
        errors = np.empty_like(left[first:stop])
        for channel in range(first, stop):
            levels = np.clip(np.rint(left[channel] / scales), -LARGEST, LARGEST)
            rounded[order[channel]] = levels
            errors[channel - first] = (left[channel] - levels * scales) / moves[channel, channel]
            left[channel + 1 : stop] -= np.outer(moves[channel, channel + 1 : stop], errors[channel - first])
        left[stop:] -= moves[first:stop, stop:].T @ errors
    return rounded


def product_in_blocks(states: Numbers, weights: Numbers) -> Numbers:
    """The product of states (n, K) and weights (K, N), both rounded in blocks of channels: (n, N)."""
    made: Numbers = round_blocks(states) @ round_blocks(weights.T).T
    return made


def round_blocks(numbers: Numbers) -> Numbers:
    """Numbers (n, K) rounded to 8 bits, 128 of a row with one scale."""
    count, width = numbers.shape
    blocks = np.pad(numbers, ((0, 0), (0, -width % BLOCK))).reshape(count, -1, BLOCK)
    scales = np.maximum(np.abs(blocks).max(-1, keepdims=True) / LARGEST, SMALLEST)
    rounded: Numbers = (np.rint(blocks / scales) * scales).reshape(count, -1)[:, :width]
    return rounded
