"""Pictures of attention: terminal, one HTML file, the studio, notebooks and papers. See README.md."""
