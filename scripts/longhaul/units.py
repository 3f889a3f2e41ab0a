"""Numbers as people read them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes with three digits: 999 B, 1.02 kB, 33.6 MB."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5 or unit == "TB":
            break
        value /= 1000
    digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def span(seconds: float) -> str:
    """A duration: 8 s, 2 min 13 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}×" if value >= 9.95 else f"{value:.1f}×"
