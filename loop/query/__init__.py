"""Which items a round asks about."""
