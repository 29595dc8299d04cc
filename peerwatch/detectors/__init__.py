"""Detectors and nothing else: rules that judge a purchase, or a row, against others."""
