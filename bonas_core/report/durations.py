"""Seconds as text for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, such as `6.5 s`, `2 h 5 min` or `3 days 4 h`."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs" if seconds else "0 s"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {round(seconds) % 60} s"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24:,} days {hours % 24} h"
