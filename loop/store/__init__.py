"""The record of a campaign: a module a noun. The only place that opens a session."""
