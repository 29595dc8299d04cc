"""Labelled data: seeded, with the anomalies that each is known for. One file a data set; the registry names them."""
