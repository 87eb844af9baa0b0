"""Python runs this first in every process that a test on PostgreSQL starts, so that its stores are there too."""

try:
    from tests.databases import follow
except ImportError:  # a program with an environment of its own, like Label Studio
    pass
else:
    follow()
