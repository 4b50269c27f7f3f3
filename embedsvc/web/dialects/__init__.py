"""The APIs that clients of other servers speak: one file each."""
