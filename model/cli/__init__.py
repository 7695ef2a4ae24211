"""The command line `m3h-model`."""
