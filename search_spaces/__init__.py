"""One commented Python file per data set: what is swept, and what it costs."""
