"""Speed and memory of FE2E and MESM, side by side."""
