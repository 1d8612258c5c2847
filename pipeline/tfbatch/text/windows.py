"""A text that is longer than an input: the windows it is read in."""

from tfbatch.errors import UsageError

STRIDE = 128  # tokens that neighbouring windows share, or half of a window


def windows_of(tokens: int, max_length: int, others: int, stride: int | None = None) -> list[slice]:
    """Which of a text's tokens go into each input of `max_length`, so that all are in one at least, where
    `others` tokens of each input are not the text's.

    Neighbours share `stride` tokens; see STRIDE for the default.

    Raises:
        UsageError: an input has no place for more tokens than are shared.
    """
    width = max_length - others
    shared = min(STRIDE, max_length // 2, max(width, 0) // 2) if stride is None else stride
    if width < 1:
        raise UsageError(f"--max-length {max_length} leaves no place beside {others} other tokens")
    if width <= shared:
        raise UsageError(
            f"--stride {shared}: an input of {max_length} tokens has place for {width} of the text's; "
            f"neighbours can share fewer than that"
        )
    count = max(1, -(-(tokens - shared) // (width - shared)))
    starts = [index * (width - shared) for index in range(count)]
    return [slice(start, min(start + width, tokens)) for start in starts]
