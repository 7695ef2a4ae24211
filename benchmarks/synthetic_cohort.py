"""How well the synthetic cohort's tasks can be predicted from its statistics and tabular values.

Compares a logistic regression for each task, a small network for each task, and one network for all
tasks with a shared trunk. Random folds over patients, 24 h after admission. Takes minutes.

    python benchmarks/synthetic_cohort.py
"""

import time

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from torch.nn import functional as F

from model.cohorts.synthetic import DISEASES, PATIENTS, SEED, patients
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec, extract_features

FOLDS = 5
INVERSE_PENALTY = 0.001
HIDDEN, HIDDEN_SHARED = 16, 256
WEIGHT_DECAYS = (3.0, 10.0, 30.0)
EPOCHS = (8, 16, 32)

Floats = npt.NDArray[np.float32]


def load() -> tuple[Floats, Floats]:
    """Inputs [patients, features], NaN where unknown, and outcomes [patients, binary tasks]."""
    spec = FeatureSpec.default()
    shape = {
        "statistics": (len(spec.variables), len(STATISTICS)),
        "treatments": (len(spec.treatments), len(TREATMENT_FEATURES)),
    }
    inputs, outcomes = [], []
    for record in patients(PATIENTS, SEED):
        arrays = extract_features(record.payload, spec).arrays
        tabular = arrays.get("tabular", {}).get("values", np.full(len(spec.tabular_names), np.nan))
        series = arrays.get("series", {n: np.full(s, np.nan) for n, s in shape.items()})
        inputs.append(np.concatenate([tabular, *(series[name].ravel() for name in shape)]))
        outcomes.append([record.outcomes[name] for name in DISEASES])
    return np.array(inputs, np.float32), np.array(outcomes, np.float32)


def scale(inputs: Floats, learn: npt.NDArray[np.intp]) -> Floats:
    """As `model.representations.modalities.RobustScaler`: median 0, missing values 0."""
    known = inputs[:, ~np.isnan(inputs[learn]).all(axis=0)]
    known = known[:, np.nanstd(known[learn], axis=0) > 0]
    low, median, high = np.nanquantile(known[learn], (0.25, 0.5, 0.75), axis=0)
    spread = np.where(high > low, (high - low) / 1.349, np.nanstd(known[learn], axis=0))
    scaled: Floats = np.nan_to_num(np.arcsinh((known - median) / spread)).astype(np.float32)
    return scaled


def logistic(x: Floats, y: Floats, learn: npt.NDArray[np.intp]) -> Floats:
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, tol=1e-3)
    return np.stack([model.fit(x[learn], t[learn]).decision_function(x) for t in y.T], axis=1)


def network(
    x: Floats, y: Floats, learn: npt.NDArray[np.intp], *, shared: bool, weight_decay: float
) -> list[Floats]:
    """Logits [patients, tasks] after each number of EPOCHS, with one trunk or one per task."""
    torch.manual_seed(0)
    tasks, trunks = y.shape[1], 1 if shared else y.shape[1]
    hidden = HIDDEN_SHARED if shared else HIDDEN
    first = torch.nn.Parameter(torch.randn(trunks, x.shape[1], hidden) / x.shape[1] ** 0.5)
    last = torch.nn.Parameter(torch.randn(tasks, hidden) / hidden**0.5)
    bias = torch.nn.Parameter(torch.logit(torch.from_numpy(y[learn].mean(axis=0))))
    decayed = {"params": [first, last], "weight_decay": weight_decay}
    optimizer = torch.optim.AdamW([decayed, {"params": [bias], "weight_decay": 0.0}], lr=1e-3)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)

    def logits(rows: torch.Tensor, dropout: float) -> torch.Tensor:
        h = F.dropout(F.gelu(F.dropout(inputs[rows], dropout) @ first), dropout)
        return torch.einsum("bk,tk->bt" if shared else "tbk,tk->bt", h.squeeze(0), last) + bias

    by_epochs = []
    for epoch in range(1, max(EPOCHS) + 1):
        for rows in torch.split(torch.from_numpy(learn)[torch.randperm(len(learn))], 64):
            loss = F.binary_cross_entropy_with_logits(logits(rows, 0.2), labels[rows])
            optimizer.zero_grad()
            (loss * tasks).backward()
            optimizer.step()
        if epoch in EPOCHS:
            with torch.no_grad():
                by_epochs.append(logits(torch.arange(len(x)), 0.0).numpy())
    return by_epochs


def aurocs(y: Floats, score: Floats) -> npt.NDArray[np.float64]:
    return np.array([roc_auc_score(y[:, t], score[:, t]) for t in range(y.shape[1])])


def main() -> None:
    torch.set_num_threads(1)  # these networks are too small for several threads
    start = time.perf_counter()
    inputs, y = load()
    print(f"{len(y)} patients generated and read in {time.perf_counter() - start:.0f} s")
    folds = list(KFold(FOLDS, shuffle=True, random_state=0).split(y))
    single: list[npt.NDArray[np.float64]] = []
    alone: list[list[npt.NDArray[np.float64]]] = []
    shared: list[list[npt.NDArray[np.float64]]] = []
    for learn, test in folds:
        x = scale(inputs, learn)
        single.append(aurocs(y[test], logistic(x, y, learn)[test]))
        for results, is_shared in ((alone, False), (shared, True)):
            scores = [
                score
                for decay in WEIGHT_DECAYS
                for score in network(x, y, learn, shared=is_shared, weight_decay=decay)
            ]
            results.append([aurocs(y[test], score[test]) for score in scores])
    auroc = np.mean(single, axis=0)
    # Each kind of network with its best setting for the mean over tasks.
    alone_best, shared_best = (
        max(np.mean(results, axis=0), key=np.mean) for results in (alone, shared)
    )
    print(f"{'task':30}{'share':>7}{'logistic':>10}{'alone':>8}{'shared':>8}")
    for t in np.argsort(auroc):
        row = f"{auroc[t]:10.3f}{alone_best[t]:8.3f}{shared_best[t]:8.3f}"
        print(f"{list(DISEASES)[t]:30}{y[:, t].mean():7.3f}{row}")
    inside = ((auroc >= 0.70) & (auroc <= 0.78)).sum()
    print(
        f"logistic: mean {auroc.mean():.3f}, {auroc.min():.3f} to {auroc.max():.3f}, "
        f"{inside} of {len(auroc)} within .70 to .78\n"
        f"networks: alone {alone_best.mean():.3f}, shared {shared_best.mean():.3f}, "
        f"gain {shared_best.mean() - alone_best.mean():+.3f}; {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
