"""Whether this machine, or every node of a Ray cluster, is fit for training: what is seen, and what to do about it."""
