"""Raw files as their makers publish them, each format once, for `hbtrain prepare` and `hbtrain evaluate` alike.

`locations` finds files, `languages` tells which language a file is in, `inputs` opens files, and each other module
reads one format. Readers give small records with their positions in the file; corpora and benchmarks make rows and
collections of them.
"""
