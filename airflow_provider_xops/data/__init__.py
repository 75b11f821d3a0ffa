"""Data on its way into the flow: files into raw tables, tables into tables, publishing."""
