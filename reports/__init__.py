"""What is shown: figures, tables, reports."""
