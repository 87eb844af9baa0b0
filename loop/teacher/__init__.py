"""The teacher: what is asked, how the answer is read, and what it may cost."""
