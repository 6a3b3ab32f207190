"""How sure a counted share is."""

CONFIDENCE = 0.95


def wilson(successes: int, n: int) -> list[float]:
    """Wilson's 95 % interval, [low, high], of a share of which `successes` of `n` were counted (Wilson 1927).

    It lies in [0, 1], also for all or none of few, where the usual normal interval has no width.
    """
    from scipy.stats import binomtest

    found = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return [float(found.low), float(found.high)]
