"""The command line: options, the console, one file a command."""
