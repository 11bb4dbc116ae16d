"""Variance of the Laplacian: the paper's measure of blur (lower is blurrier)."""

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])


def sharpness(images: np.ndarray) -> np.ndarray:
    """Return the variance of the 4-neighbour Laplacian of the luminance of each image: float64 [n], in levels².

    images: uint8 [n, C, H, W], at least 3×3.
    """
    x = images.astype(np.float64)
    grey = x[:, 0] if x.shape[1] == 1 else np.einsum("nchw,c->nhw", x, LUMA)
    centre = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * centre
    return np.asarray(laplacian.var(axis=(1, 2)))
