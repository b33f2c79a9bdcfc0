"""The page of the report: published and measured numbers."""
