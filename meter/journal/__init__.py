"""From decoded events to the journal: protocol rules, check, group commit."""
