"""Numbers and lists as people read them."""

from collections.abc import Sequence


def percent(fraction: float) -> str:
    """0.974 as '97 %'. What is not certain is never rounded to 100 %, nor what is possible to 0 %."""
    if 0.995 <= fraction < 1:
        return ">\N{NO-BREAK SPACE}99\N{NO-BREAK SPACE}%"
    if 0 < fraction < 0.005:
        return "<\N{NO-BREAK SPACE}1\N{NO-BREAK SPACE}%"
    return f"{fraction:.0%}".replace("%", "\N{NO-BREAK SPACE}%")


def plural(number: int, one: str, many: str | None = None) -> str:
    """'1 cell', '4,353 cells'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """'20', '20 and 21', '20, 21 and H3'."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
