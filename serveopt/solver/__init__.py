"""The story of a search: problem, resolve, plan, enumerate, sweep, match, reduce, rank."""
