"""Recorded data as people have them: tables, codings, files of other programs, labels."""
