"""The additive part of a binary task: weights of findings, fitted to patients.

The log-odds are an intercept plus the sum of weight times finding. A weight is the maximum of its
posterior under a normal prior around the expected effect, and at least half of the expected effect.
So the direction of a stated effect is certain, and few patients suffice for its size.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

Floats = npt.NDArray[np.float64]

LEAST_SHARE = 0.5  # of an expected effect
# Standard deviation of a weight around the expected effect: a part for all, and a part of its size.
_SPREAD, _RELATIVE_SPREAD = 0.25, 0.3
_UNSTATED_SPREAD = 0.12  # of a weight whose effect is not stated
_MAX_STEPS = 200


def fit_evidence(
    findings: Floats,
    expected: Floats,
    outcome: Floats,
    offset: Floats,
    weight: Floats,
    *,
    has_intercept: bool = True,
) -> tuple[float, Floats]:
    """The intercept, which is 0 without one, and the weights [K].

    findings [n, K], expected [K] (`expected_effects`), outcome [n] 0 or 1, offset [n] known
    log-odds, weight [n] of each patient's record. Without both outcomes the weights are `expected`.
    """
    share = float(np.average(outcome, weights=weight)) if len(outcome) else 0.0
    if not 0 < share < 1:
        return 0.0, expected.copy()
    stated = expected != 0
    spread = np.where(stated, _SPREAD + _RELATIVE_SPREAD * np.abs(expected), _UNSTATED_SPREAD)
    low = np.where(expected > 0, LEAST_SHARE * expected, -np.inf)
    high = np.where(expected < 0, LEAST_SHARE * expected, np.inf)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        z = offset + parameters[0] + findings @ parameters[1:]
        away = (parameters[1:] - expected) / spread
        value = weight @ (np.logaddexp(0.0, z) - outcome * z) + away @ away / 2
        residual = weight * (expit(z) - outcome)
        slope = np.concatenate([[residual.sum()], findings.T @ residual + away / spread])
        return float(value), slope

    start = np.concatenate([[np.log(share / (1 - share)) if has_intercept else 0.0], expected])
    bounds = [(None, None) if has_intercept else (0.0, 0.0), *zip(low, high, strict=True)]
    options = {"maxiter": _MAX_STEPS}
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return float(fitted[0]), np.asarray(fitted[1:])
