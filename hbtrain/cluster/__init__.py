"""Ray clusters that run elsewhere."""
