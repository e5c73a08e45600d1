"""The report of an evaluation: tables, charts and one page that opens from the disk, without a network."""
