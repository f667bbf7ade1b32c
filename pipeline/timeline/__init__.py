"""From a film to scores along its time: its segments, their tensors, their scores, and the files of them."""
