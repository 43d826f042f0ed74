"""Model families: each file turns a model and a worker layout into the operators of a prefill and a decode step."""
