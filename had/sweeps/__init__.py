"""Many runs: experiments become points, workers run them, every point leaves a record."""
