"""The page of the report: published beside measured."""
