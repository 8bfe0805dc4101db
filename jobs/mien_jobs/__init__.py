"""The runs of Mien: recipes, the table of methods, one module a verb, the command line."""
