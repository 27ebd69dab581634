"""What the senses found in a window, in plain English: ``two people and a car; engine; says: turn left``.

The same findings always give the same words, since the window is searched by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
PLURALS = {"person": "people", "mouse": "mice", "sheep": "sheep", "knife": "knives"}
PAIRS = ("scissors", "skis")  # plural already
UNCOUNTED = ("broccoli",)
VOWELS = "aeiou"


def words(
    counts: Mapping[str, int], sounds: Sequence[str], numbers: Mapping[str, tuple[float, str]], said: Sequence[str]
) -> str:
    """The parts that have something to tell, joined by semicolons; empty if none has.

    Args:
        counts: Label of an object -> how many, in the order in which they are named.
        numbers: Name -> value and unit.
        said: Phrases.
    """
    parts = [
        listed(counted(label, count) for label, count in counts.items() if count),
        ", ".join(sounds),
        ", ".join(f"{name} {value:.3g} {unit}".rstrip() for name, (value, unit) in numbers.items()),
        f"says: {' '.join(said)}" if said else "",
    ]
    return "; ".join(part for part in parts if part)


def counted(label: str, count: int) -> str:
    """A label with its number: ``a car``, ``two people``, ``an umbrella``, ``14 cars``."""
    if label in UNCOUNTED:
        return label
    if count == 1 and label not in PAIRS:
        return f"an {label}" if label[0] in VOWELS else f"a {label}"
    number = NUMBERS[count] if count < len(NUMBERS) else str(count)
    if label in PAIRS:
        return label if count == 1 else f"{number} {label}"
    return f"{number} {plural(label)}"


def plural(label: str) -> str:
    """A label of COCO in the plural."""
    if label in PLURALS:
        return PLURALS[label]
    return f"{label}es" if label.endswith(("s", "x", "ch", "sh")) else f"{label}s"


def listed(names: Iterable[str], joint: str = "and") -> str:
    """Names as a list: ``a, b and c``."""
    *before, last = [*names] or [""]
    return f"{', '.join(before)} {joint} {last}" if before else last
