"""Inception Score (Salimans et al., arXiv 1606.03498)."""

from __future__ import annotations

import numpy as np


class InceptionScore:
    """exp(E_x KL(p(y|x) ‖ p(y))), between 1 and K, in float64 with one split, from batches of logits of any size.

    Equation (5) of arXiv 1902.00159 is worded as a cross entropy; its figures match this standard form.
    """

    def __init__(self) -> None:
        self.n = 0
        self.negative_entropy = 0.0
        self.marginal: np.ndarray | float = 0.0

    def add(self, logits: np.ndarray) -> InceptionScore:
        """Add logits [N, K]. Return self."""
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        self.n += len(logits)
        self.negative_entropy += float((p * log_p).sum())
        self.marginal = self.marginal + p.sum(axis=0)
        return self

    def merge(self, other: InceptionScore) -> InceptionScore:
        self.n += other.n
        self.negative_entropy += other.negative_entropy
        self.marginal = self.marginal + other.marginal
        return self

    @property
    def value(self) -> float:
        # E_x Σ p log p − Σ m log m, with m the mean of p.
        m = np.asarray(self.marginal) / self.n
        entropy = -float((m * np.log(np.where(m > 0, m, 1.0))).sum())
        return float(np.exp(self.negative_entropy / self.n + entropy))
