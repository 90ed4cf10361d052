"""Raw files as their makers publish them, each format once, for `hbtrain prepare` and `hbtrain evaluate` alike.

Where files are (`locations`), whose language they are (`languages`), how they are opened (`inputs`), and what is in
them, a module for each format. Readers give small records with their places; what corpora and benchmarks make of these
is theirs.
"""
