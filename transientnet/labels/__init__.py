"""Label tables: read, checked, and put together by sky object."""
