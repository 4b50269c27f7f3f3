"""What people write and read: quantities, and strangers' text made fit to be shown."""
