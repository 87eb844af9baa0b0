"""The distillation loop: what a round is and what each of its stages does."""
