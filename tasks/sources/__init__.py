"""The sources of instruction data: a module for each release reads it and registers its tasks."""
