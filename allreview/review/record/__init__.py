"""The log read back, for people."""
