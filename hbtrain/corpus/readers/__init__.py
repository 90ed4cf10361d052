"""What `hbtrain prepare` makes of raw files (`hbtrain.formats`): texts by key, and rows of keys (`items`)."""
