"""The paper's accuracies in percent, by table and readout [tables 1-3; missing row labels restored]."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """kNN@20 and linear probe, with standard deviations where the paper ran several seeds."""

    knn: float
    linear: float
    knn_std: float | None = None
    linear_std: float | None = None


PUBLISHED: dict[str, dict[str, Published]] = {
    "cifar100-30": {
        "SIGReg-qp": Published(26.56, 30.43, 0.18, 0.30),
        "HamJEPA-q": Published(31.45, 33.95, 0.27, 0.24),
        "HamJEPA-p": Published(29.71, 33.07, 0.25, 0.36),
        "HamJEPA-qp": Published(30.88, 34.18, 0.39, 0.17),
    },
    "cifar100-80": {
        "SIGReg-qp": Published(27.98, 33.95),
        "MLP-HJEPA-q": Published(28.10, 42.26),
        "MLP-HJEPA-p": Published(28.30, 41.90),
        "MLP-HJEPA-qp": Published(28.15, 42.77),
        "HamJEPA-q": Published(34.43, 44.59),
        "HamJEPA-p": Published(32.96, 44.44),
        "HamJEPA-qp": Published(33.66, 44.52),
    },
    "imagenet100-45": {
        "SIGReg-q": Published(20.10, 24.40),
        "SIGReg-p": Published(18.78, 23.86),
        "SIGReg-qp": Published(20.94, 25.54),
        "HamJEPA-q": Published(24.92, 31.92),
        "HamJEPA-p": Published(24.72, 32.08),
        "HamJEPA-qp": Published(24.64, 32.04),
    },
}
