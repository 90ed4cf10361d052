"""What a sweep found: points, tables, pictures, the report, and the best point as a recipe."""
