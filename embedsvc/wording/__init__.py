"""What people write and read: quantities, errors in plain words, and others' texts made safe to
show."""
