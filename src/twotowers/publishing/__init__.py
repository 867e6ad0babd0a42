"""What goes on a page: style, figures, tables, verdicts, and the folder of a run; knows no chapter."""
