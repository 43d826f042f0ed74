"""The interactive view of ``serveopt explore``. Textual, the optional extra ``tui``, is imported nowhere else."""
