"""Pictures, figures and pages, from arrays: HTML files that open offline, with pictures and style inside."""
