"""Commands of the command line that have a file of their own; `hbtrain.cli.main` names them."""
