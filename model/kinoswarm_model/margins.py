"""When a paired difference of losses counts: beyond chance and beyond the charter's margin. Pure, no torch."""

_STANDARD_ERRORS = 2.0


def is_beyond(difference: float, standard_error: float, base: float, margin: float) -> bool:
    """Whether a candidate is worse than its base by over two standard errors *and* that share of the base's loss.

    An honest volunteer must not lose work to noise.
    """
    return difference > _STANDARD_ERRORS * standard_error and difference > margin * abs(base)
