"""Ray: connecting to a cluster or starting one, room for workers, what is said when a cluster is lost; jobs."""
