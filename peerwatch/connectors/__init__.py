"""Where events come from and verdicts go to: sources and sinks, one file a system."""
