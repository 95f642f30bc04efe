"""Speed and memory of the evaluation, against its targets."""
