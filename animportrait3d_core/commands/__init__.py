"""Groups of commands of the command line, one module each; `cli` puts them together and maps errors to exit codes."""
