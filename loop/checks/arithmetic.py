"""Is every equation in the steps right?"""

from loop.checks.doubt import Doubt, Doubtful
from loop.config import ChecksConfig


def wrong_equations(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:
    """Nothing yet."""
    return []
