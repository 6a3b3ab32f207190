"""The command line: whatever a page can do, a command can."""
