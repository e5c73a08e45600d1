"""What every room speaks: spans, timeline, grammar, positions, policies, events. No torch."""
