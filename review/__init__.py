"""Human judgement: what is shown to reviewers and what their verdicts mean."""
