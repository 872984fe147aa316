"""The stages of the pipeline, one a file, as plain functions: (recipe, inputs, out_dir) to a frozen result."""
