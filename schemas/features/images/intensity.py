"""The range of intensities that an image with more than eight bits shows."""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Levels = npt.NDArray[np.uint8]

# Parameters of `intensity_window`.
_BULK_SHARE, _MAX_VALUE_SHARE, _QUANTILES = 0.5, 0.01, 1000


def grey_levels(low: int, high: int, count: int) -> Levels:
    """Returns [count] the grey level of each value: black up to `low`, white from `high`."""
    values = np.arange(count, dtype=np.float64)
    levels = (values - low) / max(high - low, 1) * 255
    return np.clip(levels, 0, 255).astype(np.uint8)


def intensity_window(counts: Counts) -> tuple[int, int]:
    """Returns the lowest and highest value of the anatomy from the histogram `counts`.

    Values far from the bulk of the histogram are excluded: markers, borders and dead pixels. The
    bulk is the shortest range that holds half of the pixels (the shorth). In this search, each
    value counts for at most 1 % of the pixels, because a border often has a single value. From the
    bulk, the window extends in both directions along 1,000 quantiles, up to the first gap between
    neighbouring quantiles that exceeds the width of the bulk.
    """
    present = np.flatnonzero(counts)
    capped = np.cumsum(np.minimum(counts, max(1, int(counts.sum() * _MAX_VALUE_SHARE)))[present])
    half = capped[-1] * _BULK_SHARE
    starts = np.concatenate([[0], capped[:-1]])
    ends = np.searchsorted(capped, starts + half)
    whole = ends < len(present)
    widths = present[ends[whole]] - present[whole]
    first = int(np.argmin(widths))
    bulk, width = (present[first], present[ends[first]]), max(int(widths[first]), 1)
    shares = np.linspace(0, counts.sum() - 1, _QUANTILES + 1)
    quantiles = present[np.searchsorted(np.cumsum(counts[present]), shares, side="right")]
    above = np.concatenate([[bulk[1]], quantiles[quantiles > bulk[1]]])
    below = np.concatenate([[bulk[0]], quantiles[quantiles < bulk[0]][::-1]])
    return _last_before_gap(below, width), _last_before_gap(above, width)


def _last_before_gap(values: npt.NDArray[np.integer], width: int) -> int:
    """Returns the last value before the first step of more than `width`."""
    steps = np.abs(np.diff(values.astype(np.int64)))
    far = np.flatnonzero(steps > width)
    return int(values[far[0] if len(far) else -1])
