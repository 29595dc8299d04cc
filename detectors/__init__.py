"""Rules that judge a purchase against a window of amounts."""
