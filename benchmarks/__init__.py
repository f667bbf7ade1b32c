"""Speed, memory and floors of this project, and studies that argue with the papers' figures; not part of the wheel."""
