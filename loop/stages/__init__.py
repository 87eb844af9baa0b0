"""The stages of a round, a module each; `loop.round` alone knows their order."""
