"""Read texts from plain files, JSON lines, Parquet, Arrow, and Hugging Face datasets on disk."""
