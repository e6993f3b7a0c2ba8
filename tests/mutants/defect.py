"""What a planted defect is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """A slip that somebody could make, and the tests that must tell.

    Attributes:
        name: What is wrong then, in a few words.
        file: The file that it is made in, from the root of the repository.
        old: The right text; it occurs there exactly once.
        new: What stands in its place.
        tests: Node ids of the tests that must fail, every one of them; without parameters, at least one case of each.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
