"""Does every number come from somewhere?"""

from loop.checks.doubt import Doubt, Doubtful
from loop.config import ChecksConfig


def sourceless_quantities(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:
    """Nothing yet."""
    return []
