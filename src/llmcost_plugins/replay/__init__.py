"""Recorded traffic, sent again to measure what the layers save and what they cost in quality."""
