"""From released files to the rows of a source: reading, splitting, counting and resuming."""
