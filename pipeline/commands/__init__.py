"""The commands: thin. Each takes the parsed options and the job file's flags, prints, and returns the exit code."""
