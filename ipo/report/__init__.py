"""What people read of a run: tables, charts and pages."""
