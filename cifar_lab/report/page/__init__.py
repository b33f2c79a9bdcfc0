"""The report's page: published and measured numbers."""
