"""How fast, how small and how exact: each file is a script, see README.md."""
