"""What MESM's selection learns: its modes trained and measured side by side."""
