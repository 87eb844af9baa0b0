"""Measurements of Preceptor against plain baselines and on real data."""
