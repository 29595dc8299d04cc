"""How well detectors do, judged in order of time: the data, the folds, the figures, the page and its pictures."""
