"""Write and read Moodle's XML."""
