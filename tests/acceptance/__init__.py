"""Whole ways through the product, checked from outside."""
