"""What doubts a rationale: one file a check, and one risk from all doubts."""
