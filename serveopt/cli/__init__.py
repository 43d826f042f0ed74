"""The command line: Typer commands, terminal views, result files."""
