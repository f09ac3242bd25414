"""Words about a copy's age. Owns how it is said in a terminal."""

import time


def age_in_words(made_at_ms: int) -> str:
    """How long ago a copy was made, by this machine's clock."""
    minutes = max(0, int(time.time() * 1000) - made_at_ms) // 60_000
    if minutes < 1:
        return "made just now"
    if minutes < 120:
        return f"made {minutes} min ago"
    if minutes < 48 * 60:
        return f"made {minutes // 60} h ago"
    return f"made {minutes // (24 * 60)} days ago"
