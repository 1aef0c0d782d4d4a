"""The sections of a report, a file each: what they show of runs, and what they miss."""
