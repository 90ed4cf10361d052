"""Search: scores of queries against candidates, and exact ranks."""
