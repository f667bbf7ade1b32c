"""One face a frame: MTCNN finds candidates, a path through them picks the person, a square is cut out."""
