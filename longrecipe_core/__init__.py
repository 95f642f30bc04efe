"""Everything that computes: usable as a library and from the command line, knows no Prefect."""
