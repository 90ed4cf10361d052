"""What a sweep tries: its space, read and checked, how it is searched, and the trials in it."""
