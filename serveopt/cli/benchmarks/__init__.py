"""What ``serveopt bench`` measures, one concern per file, and how a run is compared with an earlier one."""
