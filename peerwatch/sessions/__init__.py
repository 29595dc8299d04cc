"""Anomalies in web and mobile sessions: features, each user's own past, trained models, prediction."""
