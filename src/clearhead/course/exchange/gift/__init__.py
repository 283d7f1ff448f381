"""GIFT, the text format for Moodle questions: written, parsed, turned into drafts."""
