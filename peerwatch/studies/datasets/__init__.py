"""Seeded, labelled data sets, one file each; the registry names them."""
