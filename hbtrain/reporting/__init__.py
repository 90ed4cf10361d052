"""How scores look: names of metrics, tables, colours; one place for the terminal, Markdown, pictures and reports."""
