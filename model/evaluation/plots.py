"""The report's plots, drawn from the figures of its sections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Told apart with any colour vision (Okabe & Ito 2008).
BLUE, ORANGE, GREEN, RED, SKY, GREY = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"),
    "#7F7F7F",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, SKY)
DOTS_PER_INCH = 110


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS_PER_INCH, pil_kwargs={"optimize": True})
    plt.close(figure)


def calibration(curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """`curves`: by name, `predicted` and `observed` rates."""
    figure, axes = _sheet(4.8, 4.6)
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
    """`curves`: by name, the sensitivity at each of the false positive `rates`; the first is the
    mean over all tasks.
    """
    figure, axes = _sheet(4.8, 4.6)
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
    """`by_task`: by display name the gain and both ends of its interval, sorted."""
    figure, axes = _sheet(6.5, 0.19 * len(by_task) + 0.8)
    value, low, high = np.array(list(by_task.values())).T
    place = np.arange(len(value))
    colours = [BLUE if a > 0 else RED if b < 0 else GREY for a, b in zip(low, high, strict=True)]
    axes.hlines(place, low, high, color=colours, linewidth=1.5)
    axes.scatter(value, place, color=colours, s=14, zorder=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(place, list(by_task), fontsize=7)
    axes.set(xlabel="gain in AUROC of one network for all tasks", ylim=(-1, len(value)))
    _save(figure, path)


def attention(weights: Sequence[Sequence[float]], names: Sequence[str], path: Path) -> None:
    """`weights`: from each task (a row) to each other (a column), the mean over patients."""
    figure, axes = plt.subplots(figsize=(7.5, 6.8), layout="constrained")
    shown = np.array(weights)
    np.fill_diagonal(shown, np.nan)  # far more than all others, which it would hide
    colours = plt.get_cmap("cividis").with_extremes(bad="white")
    image = axes.imshow(shown, cmap=colours, vmin=0, vmax=np.nanquantile(shown, 0.99))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
    axes.set_yticks(range(len(names)), names, fontsize=5)
    axes.set(xlabel="is read", ylabel="reads")
    figure.colorbar(image, ax=axes, shrink=0.8, label="mean attention", extend="max")
    _save(figure, path)


def learning_curve(
    shares: Sequence[float], curves: Mapping[str, Sequence[Sequence[float]]], path: Path
) -> None:
    """`curves`: by name, at each share the AUROC and both ends of its interval."""
    figure, axes = _sheet(5.2, 3.8)
    for (name, points), colour, aside in zip(curves.items(), COLOURS, (0.99, 1.01), strict=False):
        value, low, high = np.array(points).T
        x = np.array(shares) * 100 * aside
        axes.errorbar(
            x, value, [value - low, high - value], fmt="o-", color=colour, label=name, capsize=2
        )
    axes.set(xscale="log", xlabel="patients learned from (%)", ylabel="mean AUROC")
    axes.set_xticks([100 * s for s in shares], [f"{100 * s:g}" for s in shares])
    axes.minorticks_off()
    axes.legend(frameon=False)
    _save(figure, path)
