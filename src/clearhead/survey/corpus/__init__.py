"""Where the texts come from: files of lines, JSON lines, Parquet, Arrow, and Hugging Face datasets on disk."""
