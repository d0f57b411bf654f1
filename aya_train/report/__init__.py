"""Pages of HTML about a run and about data, from what a run left."""
