"""Ray: connecting to a cluster or starting one, room for workers, and what is said when a cluster is lost."""
