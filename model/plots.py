"""The report's plots."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from model.measure import FEWEST_FOR_CALIBRATION, Tested, pooled

mpl.use("Agg")
from matplotlib import pyplot as plt


def calibration_curve(tested: Tested, path: Path) -> None:
    p, y, _ = pooled(tested, FEWEST_FOR_CALIBRATION)
    parts = np.array_split(np.argsort(p), 20)
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot([p[i].mean() for i in parts], [y[i].mean() for i in parts], "o-", markersize=4)
    axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(0, 0.8), ylim=(0, 0.8))
    figure.savefig(path, dpi=120)
    plt.close(figure)
