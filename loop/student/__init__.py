"""The student: how it is prompted, how it explains and answers, how it is trained."""
