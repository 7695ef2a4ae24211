"""Plots of the report, from the figures of its sections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that people with any colour vision can distinguish (Okabe & Ito 2008).
BLUE, ORANGE, GREEN, RED, SKY, GREY = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"),
    "#7F7F7F",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, SKY)
DOTS_PER_INCH = 110


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS_PER_INCH, pil_kwargs={"optimize": True})
    plt.close(figure)


def calibration(curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Plots calibration curves. `curves`: `predicted` and `observed` rates by name."""
    figure, axes = _axes(4.8, 4.6)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(
            curve["predicted"], curve["observed"], "o-", color=colour, markersize=4, label=name
        )
    largest = max(max(*c["predicted"], *c["observed"]) for c in curves.values())
    top = min(1.0, largest * 1.05)
    axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(0, top), ylim=(0, top))
    axes.legend(frameon=False)
    _save(figure, path)


def roc(rates: Sequence[float], curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """Plots ROC curves.

    `curves`: the sensitivity at each of the false positive `rates`, by name; the first curve is the
    mean over all tasks.
    """
    figure, axes = _axes(4.8, 4.6)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for number, (name, curve) in enumerate(curves.items()):
        style: dict[str, Any] = (
            {"color": "black", "linewidth": 2.5} if not number else {"color": COLOURS[number - 1]}
        )
        axes.plot(rates, curve, label=name, **style)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    _save(figure, path)


def gains(by_task: Mapping[str, Sequence[float]], path: Path) -> None:
    """Plots gains. `by_task`: gain and ends of the interval by display name, sorted."""
    figure, axes = _axes(6.5, 0.19 * len(by_task) + 0.8)
    value, low, high = np.array(list(by_task.values())).T
    position = np.arange(len(value))
    colours = [BLUE if a > 0 else RED if b < 0 else GREY for a, b in zip(low, high, strict=True)]
    axes.hlines(position, low, high, color=colours, linewidth=1.5)
    axes.scatter(value, position, color=colours, s=14, zorder=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(position, list(by_task), fontsize=7)
    axes.set(xlabel="gain in AUROC of one network for all tasks", ylim=(-1, len(value)))
    _save(figure, path)


def attention(weights: Sequence[Sequence[float]], names: Sequence[str], path: Path) -> None:
    """Plots attention. `weights` [T, T]: mean attention of each task (row) to each other."""
    figure, axes = plt.subplots(figsize=(7.5, 6.8), layout="constrained")
    shown = np.array(weights)
    np.fill_diagonal(shown, np.nan)  # much larger than the other weights, which it would hide
    colours = plt.get_cmap("cividis").with_extremes(bad="white")
    image = axes.imshow(shown, cmap=colours, vmin=0, vmax=np.nanquantile(shown, 0.99))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
    axes.set_yticks(range(len(names)), names, fontsize=5)
    axes.set(xlabel="attended task", ylabel="task")
    figure.colorbar(image, ax=axes, shrink=0.8, label="mean attention", extend="max")
    _save(figure, path)


def learning_curve(
    shares: Sequence[float], curves: Mapping[str, Sequence[Sequence[float]]], path: Path
) -> None:
    """Plots learning curves. `curves`: AUROC and ends of the interval at each share, by name."""
    figure, axes = _axes(5.2, 3.8)
    for (name, points), colour, offset in zip(curves.items(), COLOURS, (0.99, 1.01), strict=False):
        value, low, high = np.array(points).T
        x = np.array(shares) * 100 * offset
        axes.errorbar(
            x, value, [value - low, high - value], fmt="o-", color=colour, label=name, capsize=2
        )
    axes.set(xscale="log", xlabel="training patients (%)", ylabel="mean AUROC")
    axes.set_xticks([100 * s for s in shares], [f"{100 * s:g}" for s in shares])
    axes.minorticks_off()
    axes.legend(frameon=False)
    _save(figure, path)
