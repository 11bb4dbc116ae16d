"""Inception Score (Salimans et al., arXiv 1606.03498)."""

import numpy as np


def inception_score(logits: np.ndarray) -> float:
    """exp(E_x KL(p(y|x) ‖ p(y))) from a classifier's logits [n, K], in float64, splits = 1.

    The paper words equation (5) as a cross entropy; its figures are those of this standard form. Between 1 and K.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    log_marginal = np.log(np.where(marginal > 0, marginal, 1.0))
    return float(np.exp((p * (log_p - log_marginal)).sum(axis=1).mean()))
