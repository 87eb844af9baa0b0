"""Every contact with the world: the terminal, the teacher, Label Studio, files."""
