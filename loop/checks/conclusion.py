"""Does the last step lead to the answer?"""

from loop.checks.doubt import Doubt, Doubtful
from loop.config import ChecksConfig


def missing_conclusion(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:
    """Nothing yet."""
    return []
