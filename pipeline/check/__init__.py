"""Before a long job: what a release on disk holds, beside the published counts."""
