"""One module a command; each offers SUMMARY, EXAMPLES, add_arguments and run. Heavy imports wait for run."""
