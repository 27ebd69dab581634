"""The process that joins the stages, by role."""
