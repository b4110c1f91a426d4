"""Division of a data set without splits into train and val, which stays as it is while the data set grows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError

__all__ = ["DEFAULT_FRACTION", "Division"]

DEFAULT_FRACTION = 0.1


@dataclass(frozen=True)
class Division:
    """A rule that sets images aside for validation by a hash of their names.

    Attributes:
        fraction: Share of the images, or of their groups, that is set aside.
        group: Regular expression whose first group, or whole match, names what stays together; None: every image is
            on its own.
    """

    fraction: float = DEFAULT_FRACTION
    group: str | None = None

    def is_validation(self, paths: Sequence[str], source: str, *, optional: bool = False) -> list[bool]:
        """Tell for each image whether it is set aside for validation.

        At least one group goes to each side, unless `optional`: where the hash puts none into val, the one with the
        smallest hash goes there, and likewise for train.

        Args:
            paths: Paths of the images relative to their folder, without extension.
            source: Name of the data set, for messages.
            optional: Whether one side may stay empty, since another data set has a val of its own.

        Raises:
            ConfigError: If the pattern matches no path, or there are fewer than two groups.
        """
        names = [self._group_of(path) for path in paths]
        if self.group is not None and not any(matched for matched, _ in names):
            raise ConfigError(
                f"--val-group {self.group!r} matches none of {len(paths)} images of {source}, such as {paths[0]!r}: "
                "write a pattern that matches a part of these paths"
            )
        shares = {name: _share(name) for _, name in names}
        if optional:
            return [shares[name] < self.fraction for _, name in names]
        if len(shares) < 2:
            what = "images" if self.group is None else "groups"
            raise ConfigError(
                f"{source} has {len(shares)} {what}, too few to set one aside for validation: add some, or give train "
                "and val folders of their own"
            )
        by_share = sorted(shares, key=lambda name: shares[name])
        aside = {name for name in shares if shares[name] < self.fraction} | {by_share[0]}
        if len(aside) == len(shares):
            aside.remove(by_share[-1])
        return [name in aside for _, name in names]

    def unmatched(self, paths: Sequence[str]) -> list[str]:
        """Return the paths that a group pattern does not match."""
        return [path for path in paths if self.group is not None and not self._group_of(path)[0]]

    def _group_of(self, path: str) -> tuple[bool, str]:
        """Return whether the pattern matches, and the name of the group; a path without a match is its own group."""
        match = re.search(self.group, path) if self.group is not None else None
        name = None if match is None else match.group(1 if match.re.groups else 0)
        # An empty name says nothing: it would join images that have nothing in common.
        return (True, name) if name else (False, path)


def _share(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) / 2**56
