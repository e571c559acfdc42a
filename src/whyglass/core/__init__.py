"""What everything stands on: explanation, method, target, baseline, inputs, scorer, checks, errors."""
