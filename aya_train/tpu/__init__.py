"""Steps compiled for TPU slices that are not there: memory, time and a plan."""
